import type {Socket} from 'node:net';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';

/** The connections of one server, including those that HTTP has let go of. */
export interface Connections {
  /** Tracks a connection until it closes, and cuts it when its client takes none of the bytes that wait for it. */
  add(socket: Socket): void;
  /** Cuts all of them. */
  destroyAll(): void;
}

export interface ConnectionsParts {
  /** Milliseconds in which a client has to take some of the bytes that wait for it. */
  sendTimeout: number;
  clock: Clock;
  events: Events;
}

/** Checks per `sendTimeout`. A stalled client is cut off at most one interval late. */
const CHECKS_PER_TIMEOUT = 4;

/** The bytes that a connection had sent at the last check, and the number of checks since it last made progress. */
interface Progress {
  sent: number;
  idleChecks: number;
}

export function createConnections({sendTimeout, clock, events}: ConnectionsParts): Connections {
  const open = new Map<Socket, Progress>();
  let watching = false;

  function watch(): void {
    watching = open.size > 0;
    if (watching) clock.after(sendTimeout / CHECKS_PER_TIMEOUT, check);
  }

  function check(): void {
    for (const [socket, progress] of open) {
      const waiting = socket.writableLength;
      // What the system has accepted, which it does no faster than the client reads.
      const sent = socket.bytesWritten - waiting;
      const isIdle = waiting > 0 && sent === progress.sent;
      progress.sent = sent;
      progress.idleChecks = isIdle ? progress.idleChecks + 1 : 0;
      if (progress.idleChecks >= CHECKS_PER_TIMEOUT) cut(socket);
    }
    watch();
  }

  function cut(socket: Socket): void {
    events.emit('client.stalled', {address: socket.remoteAddress, ms: sendTimeout});
    socket.destroy();
  }

  return {
    add(socket) {
      open.set(socket, {sent: 0, idleChecks: 0});
      socket.once('close', () => open.delete(socket));
      // Node removes its own listener before `connect` and `upgrade`, and an unhandled error event ends the process.
      // Nothing is left to do here: the socket destroys itself, and its writer sees it close.
      socket.on('error', () => {});
      if (!watching) watch();
    },
    destroyAll() {
      for (const socket of open.keys()) socket.destroy();
    },
  };
}
