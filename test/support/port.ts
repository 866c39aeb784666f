import {once} from 'node:events';
import {createServer} from 'node:net';

/** Below what Linux, macOS and Windows hand out by themselves. */
const FIRST = 10_000;
const COUNT = 22_000;

/**
 * A free port that the system gives to nobody who asks for just any. When its server stops, another test's server does
 * not come to listen there meanwhile: it refuses connections, and can be taken again.
 */
export async function ownPort(address = '127.0.0.1'): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    const server = createServer();
    try {
      await once(server.listen(port, address), 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') continue;
      throw error;
    }
    server.close();
    await once(server, 'close');
    return port;
  }
}
