import {chmod} from 'node:fs/promises';
import {type AddressInfo, createServer, type ListenOptions, type Server as NetServer} from 'node:net';
import type {ListenAddress} from '../address.ts';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {removeStaleSocket} from '../unix-socket.ts';

/** Failures to accept connections come by the thousand: at most one per interval is reported. */
const REPORT_INTERVAL_MS = 1000;

/**
 * Connections that may wait to be accepted: as many as the system allows (`net.core.somaxconn` on Linux). What is more than
 * that is tried again by the client's system after a second or later.
 */
const MAX_WAITING = 65_535;

/** A host and a port. */
export type NetworkAddress = Extract<ListenAddress, {host: string}>;
type SocketAddress = Exclude<ListenAddress, NetworkAddress>;

/**
 * Listens on a port.
 * @param isShared whether workers are to listen on it as well
 * @returns the address with the port that it has, where that was 0
 * @throws the system's error: EADDRINUSE, also where another process would share the port
 */
export async function listenOn(
  server: NetServer,
  {host, port}: NetworkAddress,
  isShared: boolean,
): Promise<NetworkAddress> {
  // Another server of this user could share such a port, and get some of our connections.
  const own = isShared && !server.listening ? await ownPort(host, port) : port;
  await listening(server, {host, port: own, reusePort: isShared});
  return {host, port: portOf(server)};
}

/** Whether this system shares a port among several listeners (`SO_REUSEPORT`), as Linux does. */
export async function canSharePorts(): Promise<boolean> {
  const probe = createServer();
  try {
    await listening(probe, {host: '127.0.0.1', port: 0, reusePort: true});
    return true;
  } catch {
    return false;
  } finally {
    probe.close();
  }
}

/** Listens on a port that the owner has. */
export const shareListening = (server: NetServer, {host, port}: NetworkAddress): Promise<void> =>
  listening(server, {host, port, reusePort: true});

/** Listens on a Unix socket. A file that a dead process has left there is removed. @throws the system's error */
export async function listenOnSocket(server: NetServer, {socket, socketMode}: SocketAddress): Promise<void> {
  await removeStaleSocket(socket);
  await listening(server, {path: socket});
  await chmod(socket, socketMode);
}

/** A port that nobody else listens on. */
async function ownPort(host: string, port: number): Promise<number> {
  const probe = createServer();
  await listening(probe, {host, port});
  const own = portOf(probe);
  await new Promise((resolve) => probe.close(resolve));
  return own;
}

const portOf = (server: NetServer): number => (server.address() as AddressInfo).port;

function listening(server: NetServer, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({backlog: MAX_WAITING, ...options}, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Failures to accept a connection: a lack of file descriptors (EMFILE) may be over in a moment. */
export function reportFailures(server: NetServer, clock: Clock, events: Events): void {
  let reported = false;
  server.on('error', (error) => {
    // Before it listens, `listen` rejects with the error.
    if (reported || !server.listening) return;
    reported = true;
    clock.after(REPORT_INTERVAL_MS, () => {
      reported = false;
    });
    events.emit('listener.failed', {error});
  });
}
