import {once} from 'node:events';
import {chmod} from 'node:fs/promises';
import {
  type AddressInfo,
  createServer,
  type ListenOptions,
  Server as NetServer,
  type ServerOpts,
} from 'node:net';
import type {ListenAddress} from '../address.ts';
import {type Clock, sleep} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';
import {removeStaleSocket} from '../unix-socket.ts';

/** Failures to accept connections come by the thousand: at most one per interval is reported. */
const REPORT_INTERVAL_MS = 1000;

/**
 * Connections that may wait at a socket to be accepted: as many as the system allows (`net.core.somaxconn` on Linux). What is more than
 * that is tried again by the client's system after a second or later.
 */
const MAX_WAITING = 65_535;

/**
 * Sockets of each thread on a port that can be shared. The system spreads connections over all of them, each of which lets as
 * many wait as a single one would, and libuv accepts one of each in a turn of the event loop.
 */
const SHARED_SOCKETS = 4;

/** How long a port that nobody else listens on may still be taken, and how often that is looked at, in milliseconds. */
const MAX_RELEASE_MS = 1000;
const RELEASE_INTERVAL_MS = 10;

/** A host and a port. */
export type NetworkAddress = Extract<ListenAddress, {host: string}>;
type SocketAddress = Exclude<ListenAddress, NetworkAddress>;

/** The sockets that a server listens on. */
export interface ListeningSockets {
  /**
   * Listens as the owner of the address.
   * @returns the address with the port that it has, where that was 0
   * @throws the system's error: EADDRINUSE, also where another process would share the port
   */
  listen(): Promise<ListenAddress>;
  /** Listens on a port that the owner has. @throws the system's error */
  join(): Promise<void>;
  /** Accepts no further connections. Resolves when all have ended that were accepted. */
  close(): Promise<void>;
}

export interface ListeningSocketsParts {
  /** Serves the connections, and has the first of the sockets. */
  server: NetServer;
  address: ListenAddress;
  /** Whether several sockets listen on its port, in this thread and in workers: see `canSharePorts`. */
  isShared: boolean;
  clock: Clock;
  events: Events;
}

export const createListeningSockets = (parts: ListeningSocketsParts): ListeningSockets =>
  new ServerSockets(parts);

class ServerSockets implements ListeningSockets {
  readonly #server: NetServer;
  readonly #address: ListenAddress;
  readonly #isShared: boolean;
  readonly #clock: Clock;
  /** Each has a socket beside that of the server, which serves their connections. */
  readonly #others: readonly NetServer[];

  constructor({server, address, isShared, clock, events}: ListeningSocketsParts) {
    this.#server = server;
    this.#address = address;
    this.#isShared = isShared;
    this.#clock = clock;
    this.#others = Array.from({length: isShared ? SHARED_SOCKETS - 1 : 0}, () => socketBeside(server));
    reportFailures([server, ...this.#others], clock, events);
  }

  async listen(): Promise<ListenAddress> {
    const address = this.#address;
    if ('socket' in address) {
      await listenOnSocket(this.#server, address);
      return address;
    }
    const {host, port} = address;
    if (this.#isShared && !this.#server.listening) await this.#listenAlone(host, port);
    else await listening(this.#server, {host, port});
    await this.#listenBeside();
    return {host, port: addressOf(this.#server).port};
  }

  async join(): Promise<void> {
    if ('socket' in this.#address) return;
    const {host, port} = this.#address;
    await listening(this.#server, {host, port, reusePort: true});
    await this.#listenBeside();
  }

  async close(): Promise<void> {
    await Promise.all([this.#server, ...this.#others].map(closed));
  }

  /** Listens on a port that can be shared, and that nobody else has: another server of this user could get some connections. */
  async #listenAlone(host: string, port: number): Promise<void> {
    // The system chooses one that nobody has.
    if (port !== 0) await refuseTaken(host, port);
    for (let waited = 0; ; waited += RELEASE_INTERVAL_MS) {
      try {
        return await listening(this.#server, {host, port, reusePort: true});
      } catch (error) {
        if (errorCode(error) !== 'EADDRINUSE' || waited >= MAX_RELEASE_MS) throw error;
      }
      // A program that another thread is starting has the socket that found the port free until it runs.
      await sleep(this.#clock, RELEASE_INTERVAL_MS);
    }
  }

  /** A name of the host may have several addresses: all sockets listen on the same one. */
  async #listenBeside(): Promise<void> {
    const {address: host, port} = addressOf(this.#server);
    for (const other of this.#others) await listening(other, {host, port, reusePort: true});
  }
}

/** Resolves when a server has ended: without what node's HTTP server does beside, see `createGracefulClose`. */
const closed = (server: NetServer): Promise<void> =>
  new Promise((resolve) => NetServer.prototype.close.call(server, () => resolve()));

/** A server that has the same options, and leaves its connections to `server`. */
function socketBeside(server: NetServer): NetServer {
  const beside = createServer((socket) => server.emit('connection', socket));
  const {allowHalfOpen, noDelay, pauseOnConnect} = server as NetServer & ConnectionOptions;
  return Object.assign(beside, {allowHalfOpen, noDelay, pauseOnConnect});
}

/** Node keeps these options of a server as properties of the same names. */
type ConnectionOptions = Pick<ServerOpts, 'allowHalfOpen' | 'noDelay' | 'pauseOnConnect'>;

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

/** Listens on a Unix socket. A file that a dead process has left there is removed. @throws the system's error */
async function listenOnSocket(server: NetServer, {socket, socketMode}: SocketAddress): Promise<void> {
  await removeStaleSocket(socket);
  await listening(server, {path: socket});
  await chmod(socket, socketMode);
}

/** @throws the system's error: EADDRINUSE where anybody listens on the port, also with a socket that could be shared */
async function refuseTaken(host: string, port: number): Promise<void> {
  const probe = createServer();
  await listening(probe, {host, port});
  await new Promise((resolve) => probe.close(resolve));
}

const addressOf = (server: NetServer): AddressInfo => server.address() as AddressInfo;

async function listening(server: NetServer, options: ListenOptions): Promise<void> {
  server.listen({backlog: MAX_WAITING, ...options});
  await once(server, 'listening');
}

/** Failures to accept a connection: a lack of file descriptors (EMFILE) may be over in a moment. */
function reportFailures(servers: readonly NetServer[], clock: Clock, events: Events): void {
  let reported = false;
  const report = (error: Error): void => {
    if (reported) return;
    reported = true;
    clock.after(REPORT_INTERVAL_MS, () => {
      reported = false;
    });
    events.emit('listener.failed', {error});
  };
  // Before a server listens, `listening` rejects with the error.
  for (const server of servers) server.on('error', (error) => server.listening && report(error));
}
