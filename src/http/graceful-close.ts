import type {Server} from 'node:http';
import type {Connections} from './connections.ts';

/** Ends the connections of a server that closes: each once its client has read the answers that were begun. */
export interface GracefulClose {
  /** Begins when no further connections are accepted. @param ended resolve when all have ended */
  begin(ended: readonly Promise<void>[]): Promise<void>;
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
    async begin(ended) {
      endIdle();
      await Promise.all(ended);
      // Now that no connection is left, this ends what node checks from time to time.
      server.close(() => {});
    },
    endIdle,
  };
}
