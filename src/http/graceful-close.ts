import type {Server} from 'node:http';
import {Server as NetServer} from 'node:net';
import type {Connections} from './connections.ts';

/** Ends the connections of a server that closes: each once its client has read the answers that were begun. */
export interface GracefulClose {
  /**
   * Accepts no further connections. Resolves when all have ended.
   * @param others resolves when those have ended that the server has not accepted itself
   */
  begin(others: Promise<unknown>): Promise<void>;
  /** Ends the connections that no request is running on, once nothing that was written waits to be read. */
  endIdle(): void;
}

/**
 * Node's HTTP server calls a connection idle as soon as an answer has been given to it, also while most of it waits for a
 * slow client: its own `close` would cut that answer off.
 */
export function createGracefulClose(server: Server, connections: Pick<Connections, 'sent'>): GracefulClose {
  let ending = false;

  function endIdle(): void {
    if (ending) return;
    ending = true;
    void connections.sent().then(() => {
      ending = false;
      server.closeIdleConnections();
    });
  }

  return {
    async begin(others) {
      const ended = new Promise<void>((resolve) => NetServer.prototype.close.call(server, () => resolve()));
      endIdle();
      await Promise.all([ended, others]);
      // Now that no connection is left, this ends what node checks from time to time.
      server.close(() => {});
    },
    endIdle,
  };
}
