import type {IncomingMessage} from 'node:http';
import type {Cancel, Clock} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import {connectionFault} from './fault.ts';

export interface Body {
  /** Resolves when the body has ended, broken or been closed. */
  readonly ended: Promise<void>;
  /** The bytes as they came. Iterate once. Throws UpstreamFailure when the connection breaks or idles. */
  chunks: AsyncIterable<Uint8Array>;
  /** The same for what is read as a whole: also throws UpstreamFailure `timeout` when they come too slowly. */
  steady: AsyncIterable<Uint8Array>;
  /** Ends the connection unless the body has ended. Idempotent. @param reason what whoever reads it is to be thrown */
  close(reason?: Error): void;
}

/**
 * Bytes per millisecond at which what is sent or read as a whole passes at the least: so slow are the slowest lines, and
 * who sends a byte now and then holds nobody longer. Its time comes on top of that for the headers, or of the idle limit.
 */
export const SLOWEST = 64;

/** A small rest is read, so that the connection can be used again; a larger one costs more than a new connection. */
const DRAIN_LIMIT = 64 * 1024;

/** Calls `onIdle` once when `waiting` was left on for `limit` milliseconds. Time that the reader takes does not count. */
export function watchIdle(clock: Clock, limit: number, onIdle: () => void) {
  let since: number | undefined;
  const look = (): void => {
    const left = since === undefined ? limit : since + limit - clock.monotonic();
    if (left <= 0) onIdle();
    else cancel = clock.after(left, look);
  };
  let cancel: Cancel = clock.after(limit, look);
  return {
    waiting: () => {
      since = clock.monotonic();
    },
    calm: () => {
      since = undefined;
    },
    stop: () => cancel(),
  };
}

/** @param idle milliseconds without a byte after which the body has failed. */
export function createBody(response: IncomingMessage, host: string, idle: number, clock: Clock): Body {
  const {promise: ended, resolve: end} = Promise.withResolvers<void>();
  let closed: Error | undefined;
  const close = (reason?: Error): void => {
    closed ??= reason;
    // After its end this leaves the connection alone: node has given it back to the agent.
    response.destroy();
    end();
  };

  async function* read(): AsyncGenerator<Uint8Array, void, undefined> {
    let idled = false;
    const watch = watchIdle(clock, idle, () => {
      idled = true;
      response.destroy();
    });
    try {
      // Straight from node's response; got's own stream would cost more for each chunk.
      const source: AsyncIterator<Uint8Array> = response[Symbol.asyncIterator]();
      for (;;) {
        watch.waiting();
        const next = await source.next();
        watch.calm();
        if (closed) throw closed;
        if (next.done) break;
        yield next.value;
      }
    } catch (error) {
      if (closed) throw closed;
      if (idled) throw new UpstreamFailure('timeout', host, `sent no byte of the body for ${idle} ms`);
      throw connectionFault(error, host);
    } finally {
      watch.stop();
      close();
    }
  }

  /** It is enough to look when bytes come: that none do is what the idle limit is for. */
  async function* readSteadily(): AsyncGenerator<Uint8Array, void, undefined> {
    const began = clock.monotonic();
    let length = 0;
    for await (const chunk of read()) {
      length += chunk.length;
      const spent = clock.monotonic() - began;
      if (spent > idle + length / SLOWEST) {
        throw new UpstreamFailure(
          'timeout',
          host,
          `sends the body too slowly: ${length} bytes came in ${spent} ms, and it had not ended`,
        );
      }
      yield chunk;
    }
  }

  return {
    ended,
    chunks: {[Symbol.asyncIterator]: read},
    steady: {[Symbol.asyncIterator]: readSteadily},
    close,
  };
}

/** Reads what is left of a body that nobody wants, if it is small; else ends the connection. */
export function discard(body: Body): void {
  const drain = async (): Promise<void> => {
    let length = 0;
    for await (const chunk of body.steady) {
      length += chunk.length;
      if (length > DRAIN_LIMIT) return;
    }
  };
  // Nothing depends on it: a connection that breaks here is gone, as it would have been.
  drain().catch(() => undefined);
}

/**
 * Reads a whole body into memory.
 * @param limit bytes.
 * @throws UpstreamFailure `protocol` when it is larger, `timeout` when it comes too slowly, or as the body's iteration.
 */
export async function collect(body: Body, host: string, limit: number, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body.steady) {
    length += chunk.length;
    if (length > limit) {
      throw new UpstreamFailure(
        'protocol',
        host,
        `${what} is larger than ${limit} bytes, the most that is read`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}
