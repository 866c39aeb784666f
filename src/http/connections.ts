import type {Socket} from 'node:net';

/** The connections of one server, whatever HTTP or the application does with them. */
export interface Connections {
  /** Holds a connection until it has closed. */
  add(socket: Socket): void;
  /** Cuts them all, also those that HTTP has let go of. */
  destroyAll(): void;
}

export function createConnections(): Connections {
  const open = new Set<Socket>();
  return {
    add(socket) {
      open.add(socket);
      socket.once('close', () => open.delete(socket));
      // Node takes its own listener off before `connect` and `upgrade`, and an error that nobody listens to ends the
      // process. Nothing is left to do: the socket destroys itself, and whoever writes to it sees it close.
      socket.on('error', () => {});
    },
    destroyAll() {
      for (const socket of open) socket.destroy();
    },
  };
}
