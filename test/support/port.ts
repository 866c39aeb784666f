import {createSocket} from 'node:dgram';
import {type EventEmitter, once} from 'node:events';
import {createServer} from 'node:net';

/** Below what Linux, macOS and Windows hand out by themselves. */
const FIRST = 10_000;
const COUNT = 22_000;

/**
 * A free port that nobody else is given until this thread ends: neither by the system, which hands out others, nor by
 * this function in whatever process. When its server stops, another test's server does not come to listen there: it
 * refuses connections, and can be taken again. What says that it is taken is a UDP socket of the same number.
 */
export async function ownPort(address = '127.0.0.1'): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    const reservation = createSocket('udp4').unref();
    if (await listens(reservation.bind({port, address, exclusive: true}))) {
      const server = createServer();
      if (await listens(server.listen(port, address))) {
        server.close();
        await once(server, 'close');
        return port;
      }
    }
    reservation.close();
  }
}

async function listens(socket: EventEmitter): Promise<boolean> {
  try {
    await once(socket, 'listening');
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
}
