import type {Socket} from 'node:net';
import type {Duplex} from 'node:stream';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';

/** A connection as far as answers are written to it. */
export interface ClientSocket extends Duplex {
  /** Undefined behind a Unix socket, and once the connection has ended. */
  readonly remoteAddress?: string | undefined;
  /** With those that wait to be sent. */
  readonly bytesWritten: number;
}

/** The connections of one server, including those that node's HTTP server no longer tracks, e.g. after `CONNECT`. */
export interface Connections {
  /** Tracks a connection until it closes, and disconnects its client when that reads nothing of its response. */
  add(socket: Socket): void;
  /** Only tracks it: a worker sees what its client reads. */
  adopt(socket: ClientSocket): void;
  /** Resolves when nothing that was written waits for a client to read it. */
  sent(): Promise<void>;
  /** Disconnects all clients. */
  destroyAll(): void;
}

export interface ConnectionsParts {
  /** Milliseconds within which a client must read some of the bytes that are waiting for it. */
  sendTimeout: number;
  clock: Clock;
  events: Events;
}

/** Checks per `sendTimeout`. A stalled client is disconnected at most one interval late. */
const CHECKS_PER_TIMEOUT = 4;

/** How far a connection was at the last check, and the number of checks since it last made progress. */
interface LastCheck {
  /** Bytes of the writes that had ended. */
  sent: number;
  /** Bytes that were left of the one under way. */
  left: number;
  idleChecks: number;
}

/** A connection's own part of Node, which has no public name for this: `setTimeout` of a socket asks it as well. */
interface WithHandle {
  readonly _handle?: {readonly writeQueueSize?: number} | null;
}

/** Bytes of the write under way that the system has not accepted yet, which it does no faster than the client reads. */
const bytesLeft = (socket: ClientSocket): number => (socket as WithHandle)._handle?.writeQueueSize ?? 0;

export function createConnections({sendTimeout, clock, events}: ConnectionsParts): Connections {
  const open = new Map<ClientSocket, LastCheck | undefined>();
  let watching = false;

  function watch(): void {
    watching = open.size > 0;
    if (watching) clock.after(sendTimeout / CHECKS_PER_TIMEOUT, check);
  }

  function check(): void {
    for (const [socket, last] of open) {
      if (!last) continue;
      const waiting = socket.writableLength;
      const sent = socket.bytesWritten - waiting;
      const left = bytesLeft(socket);
      const isIdle = waiting > 0 && sent === last.sent && left === last.left;
      last.sent = sent;
      last.left = left;
      last.idleChecks = isIdle ? last.idleChecks + 1 : 0;
      if (last.idleChecks >= CHECKS_PER_TIMEOUT) disconnect(socket);
    }
    watch();
  }

  function disconnect(socket: ClientSocket): void {
    events.emit('client.stalled', {address: socket.remoteAddress, ms: sendTimeout});
    socket.destroy();
  }

  function track(socket: ClientSocket, check: LastCheck | undefined): void {
    open.set(socket, check);
    socket.once('close', () => open.delete(socket));
    // Node removes its own listener before `connect` and `upgrade`, and an unhandled error event ends the process.
    // Nothing is left to do here: the socket destroys itself, and its writer sees it close.
    socket.on('error', () => {});
  }

  return {
    add(socket) {
      track(socket, {sent: 0, left: 0, idleChecks: 0});
      if (!watching) watch();
    },
    adopt: (socket) => track(socket, undefined),
    async sent() {
      for (;;) {
        const waiting = [...open.keys()].filter(({writableLength}) => writableLength > 0);
        if (waiting.length === 0) return;
        await Promise.all(waiting.map(whenSent));
      }
    },
    destroyAll() {
      for (const socket of open.keys()) socket.destroy();
    },
  };
}

/** Resolves when what was written to a connection by now has left, or the connection has closed. */
const whenSent = (socket: ClientSocket): Promise<void> =>
  new Promise((resolve) => {
    // A write to a destroyed socket fails at once, and what waited is not gone before it closes.
    if (socket.writableEnded || socket.destroyed) socket.once('close', () => resolve());
    else socket.write('', () => resolve());
  });
