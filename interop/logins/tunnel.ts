import {once} from 'node:events';
import {createServer} from 'node:http';
import {connect, type Socket} from 'node:net';
import type {Scope} from '../../rig/scope.ts';

/** An HTTP proxy that opens TLS tunnels, so that clients reach servers of this machine by names that no DNS knows. */
export interface Tunnel {
  /** For the clients' `HTTPS_PROXY`. */
  readonly url: string;
  /** Leads a name to a port of 127.0.0.1 from now on. */
  lead(name: string, port: number): void;
}

/** Listens until the scope ends. A name that leads nowhere is answered 502. */
export async function createTunnel(scope: Scope): Promise<Tunnel> {
  const ports = new Map<string, number>();
  const sockets = new Set<Socket>();
  const server = createServer((_, response) => response.writeHead(502).end());
  server.on('connect', ({url = ''}, client: Socket, head: Buffer) => {
    const port = ports.get(url.replace(/:443$/, ''));
    client.on('error', () => client.destroy());
    if (port === undefined) return void client.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
    const behind = connect(port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      behind.write(head);
      client.pipe(behind).pipe(client);
    });
    behind.on('error', () => client.destroy());
    client.on('close', () => behind.destroy());
    behind.on('close', () => client.destroy());
    sockets.add(client);
    client.on('close', () => sockets.delete(client));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scope.defer(() => {
    server.close();
    server.closeAllConnections();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the tunnel has no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    lead: (name, port) => void ports.set(name, port),
  };
}
