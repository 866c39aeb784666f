import type {IncomingMessage} from 'node:http';
import {type Clock, NOT_NEEDED} from '../clock.ts';
import {connectionFault} from './fault.ts';
import {UpstreamFailure} from './port.ts';

export interface Body {
  /** Resolves when the body has ended, broken or been closed. */
  readonly ended: Promise<void>;
  /** The bytes as they came. Iterate once. Throws UpstreamFailure when the connection breaks or idles. */
  chunks: AsyncIterable<Uint8Array>;
  /** Ends the connection unless the body has ended. Idempotent. */
  close(): void;
}

/** A small rest is read, so that the connection can be used again; a larger one costs more than a new connection. */
const DRAIN_LIMIT = 64 * 1024;

/** Calls `onIdle` once when `waiting` was left on for `limit` milliseconds. Time that the reader takes does not count. */
export function watchIdle(clock: Clock, limit: number, onIdle: () => void) {
  const stop = new AbortController();
  let since: number | undefined;
  const watch = async (): Promise<void> => {
    for (;;) {
      const left = since === undefined ? limit : since + limit - clock.now();
      if (left <= 0) return onIdle();
      await clock.sleep(left, stop.signal);
    }
  };
  watch().catch(() => undefined);
  return {
    waiting: () => {
      since = clock.now();
    },
    calm: () => {
      since = undefined;
    },
    stop: () => stop.abort(NOT_NEEDED),
  };
}

/**
 * Waits for something to happen to a response whose `read` gave nothing. Node's own iterator would do it as well, with
 * so many listeners that small bodies cost more by them than by their bytes.
 */
function createWait(response: IncomingMessage): () => Promise<void> {
  let wake = (): void => undefined;
  const stir = (): void => wake();
  for (const event of ['readable', 'end', 'error', 'close']) response.on(event, stir);
  return () =>
    new Promise((resolve) => {
      wake = resolve;
    });
}

const prematureClose = (): Error =>
  Object.assign(new Error('closed before its end'), {code: 'ERR_STREAM_PREMATURE_CLOSE'});

/** @param idle milliseconds without a byte after which the body has failed. */
export function createBody(response: IncomingMessage, host: string, idle: number, clock: Clock): Body {
  const {promise: ended, resolve: end} = Promise.withResolvers<void>();
  const close = (): void => {
    // After its end this leaves the connection alone: node has given it back to the agent.
    response.destroy();
    end();
  };

  async function* read(): AsyncGenerator<Uint8Array, void, undefined> {
    let idled = false;
    const giveUp = (): void => {
      idled = true;
      response.destroy();
    };
    // Of a body that has arrived with its head, as most small ones, nothing is waited for.
    const watch = response.complete ? undefined : watchIdle(clock, idle, giveUp);
    const happening = createWait(response);
    try {
      for (;;) {
        const chunk: Buffer | null = response.read();
        if (chunk) {
          yield chunk;
          continue;
        }
        if (response.errored) throw response.errored;
        if (response.readableEnded) return;
        if (response.destroyed) throw prematureClose();
        watch?.waiting();
        await happening();
        watch?.calm();
      }
    } catch (error) {
      if (idled) throw new UpstreamFailure('timeout', host, `sent no byte of the body for ${idle} ms`);
      throw connectionFault(error, host);
    } finally {
      watch?.stop();
      close();
    }
  }

  return {ended, chunks: {[Symbol.asyncIterator]: read}, close};
}

/** Reads what is left of a body that nobody wants, if it is small; else ends the connection. */
export function discard(body: Body): void {
  const drain = async (): Promise<void> => {
    let length = 0;
    for await (const chunk of body.chunks) {
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
 * @throws UpstreamFailure `protocol` when it is larger, or as the body's iteration does.
 */
export async function collect(body: Body, host: string, limit: number, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body.chunks) {
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
