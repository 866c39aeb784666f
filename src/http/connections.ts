import type {Socket} from 'node:net';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';

/** The connections of one server, whatever HTTP or the application does with them. */
export interface Connections {
  /** Holds a connection until it has closed, and cuts it when its client takes none of the bytes that wait for it. */
  add(socket: Socket): void;
  /** Cuts them all, also those that HTTP has let go of. */
  destroyAll(): void;
}

export interface ConnectionsParts {
  /** Milliseconds in which a client has to take some of the bytes that wait for it. */
  sendTimeout: number;
  clock: Clock;
  events: Events;
}

/** How often the connections are looked at within `sendTimeout`: by one interval later, a client is cut off. */
const LOOKS = 4;

/** What a connection had sent when it was last looked at, and in how many looks since then nothing more. */
interface Progress {
  sent: number;
  idleLooks: number;
}

export function createConnections({sendTimeout, clock, events}: ConnectionsParts): Connections {
  const open = new Map<Socket, Progress>();
  let watching = false;

  function watch(): void {
    watching = open.size > 0;
    if (watching) clock.after(sendTimeout / LOOKS, look);
  }

  function look(): void {
    for (const [socket, progress] of open) {
      const waiting = socket.writableLength;
      // What the system has taken, which it does no faster than the client reads.
      const sent = socket.bytesWritten - waiting;
      const isIdle = waiting > 0 && sent === progress.sent;
      progress.sent = sent;
      progress.idleLooks = isIdle ? progress.idleLooks + 1 : 0;
      if (progress.idleLooks >= LOOKS) cut(socket);
    }
    watch();
  }

  function cut(socket: Socket): void {
    events.emit('client.stalled', {address: socket.remoteAddress, ms: sendTimeout});
    socket.destroy();
  }

  return {
    add(socket) {
      open.set(socket, {sent: 0, idleLooks: 0});
      socket.once('close', () => open.delete(socket));
      // Node takes its own listener off before `connect` and `upgrade`, and an error that nobody listens to ends the
      // process. Nothing is left to do: the socket destroys itself, and whoever writes to it sees it close.
      socket.on('error', () => {});
      if (!watching) watch();
    },
    destroyAll() {
      for (const socket of open.keys()) socket.destroy();
    },
  };
}
