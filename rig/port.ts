import {createSocket} from 'node:dgram';
import {once} from 'node:events';
import {connect} from 'node:net';

/** Below the ports that Linux, macOS and Windows use for outgoing connections. */
const FIRST = 10_000;
const COUNT = 22_000;

/**
 * A free port that nobody else is given until this thread ends: neither by the system, which hands out others, nor by
 * this function in another process. When its server stops, no other server listens there: it refuses connections, and
 * can be listened on again. A UDP socket of the same number reserves it.
 *
 * Whether it is free is not found out by listening: a program that another thread is just starting would hold such a
 * listener for a moment after it was closed.
 */
export async function ownPort(address = '127.0.0.1'): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    const reservation = createSocket('udp4').unref();
    const reserved = once(reservation.bind({port, address, exclusive: true}), 'listening');
    if ((await unless('EADDRINUSE', reserved)) && !(await answers(port, address))) return port;
    reservation.close();
  }
}

async function answers(port: number, address: string): Promise<boolean> {
  const socket = connect(port, address);
  const answered = await unless('ECONNREFUSED', once(socket, 'connect'));
  socket.destroy();
  return answered;
}

/** False when the system refuses with this code. @throws every other error */
export async function unless(code: string, done: Promise<unknown>): Promise<boolean> {
  try {
    await done;
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === code) return false;
    throw error;
  }
}
