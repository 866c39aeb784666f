import {createSocket} from 'node:dgram';
import {once} from 'node:events';
import {connect} from 'node:net';

/** Below what Linux, macOS and Windows hand out by themselves. */
const FIRST = 10_000;
const COUNT = 22_000;

/**
 * A free port that nobody else is given until this thread ends: neither by the system, which hands out others, nor by
 * this function in whatever process. When its server stops, another test's server does not come to listen there: it
 * refuses connections, and can be taken again. What says that it is taken is a UDP socket of the same number.
 *
 * It is not listened on to find out whether it is free: a program that another thread is just starting would hold such a
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

/** False when the system refuses with this code. @throws whatever else it says */
export async function unless(code: string, done: Promise<unknown>): Promise<boolean> {
  try {
    await done;
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === code) return false;
    throw error;
  }
}
