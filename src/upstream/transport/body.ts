import type {IncomingMessage} from 'node:http';
import {type Clock, watchIdle} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import {connectionFault} from './fault.ts';

export interface Body {
  /** Resolves when the body has ended, broken or been closed. */
  readonly ended: Promise<void>;
  /** The bytes as they arrive. Iterate once. Throws UpstreamFailure when the connection breaks or idles. */
  chunks: AsyncIterable<Uint8Array>;
  /** The same, for a body that is read as a whole: also throws UpstreamFailure `timeout` when the bytes arrive too slowly. */
  timed: AsyncIterable<Uint8Array>;
  /** Ends the connection unless the body has ended. Idempotent. @param reason thrown to the body's reader */
  close(reason?: Error): void;
}

/**
 * The slowest rate at which a body that is sent or read as a whole may pass, so that a peer that sends a byte now and
 * then does not hold a request for long. The time that the size allows is added to that for the headers or to the idle
 * limit.
 */
export const MIN_BYTES_PER_MS = 64;

/** Up to this many bytes are read so that the connection can be reused; reading more costs more than a new connection. */
const MAX_DRAIN_BYTES = 64 * 1024;

/** @param idle milliseconds without a byte after which the body has failed. */
export const createBody = (response: IncomingMessage, host: string, idle: number, clock: Clock): Body =>
  new ResponseBody(response, host, idle, clock);

class ResponseBody implements Body {
  readonly ended: Promise<void>;
  readonly chunks: AsyncIterable<Uint8Array> = {[Symbol.asyncIterator]: () => this.#read()};
  readonly timed: AsyncIterable<Uint8Array> = {[Symbol.asyncIterator]: () => this.#readTimed()};
  readonly #response: IncomingMessage;
  readonly #host: string;
  readonly #idle: number;
  readonly #clock: Clock;
  readonly #end: () => void;
  #closeReason: Error | undefined;

  constructor(response: IncomingMessage, host: string, idle: number, clock: Clock) {
    const {promise, resolve} = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
    this.#response = response;
    this.#host = host;
    this.#idle = idle;
    this.#clock = clock;
  }

  close(reason?: Error): void {
    this.#closeReason ??= reason;
    // After the body's end this does not affect the connection: node has returned it to the agent.
    this.#response.destroy();
    this.#end();
  }

  async *#read(): AsyncGenerator<Uint8Array, void, undefined> {
    let idled = false;
    const watch = watchIdle(this.#clock, this.#idle, () => {
      idled = true;
      this.#response.destroy();
    });
    try {
      // Read from node's response: got's own stream would cost more for each chunk.
      const source: AsyncIterator<Uint8Array> = this.#response[Symbol.asyncIterator]();
      for (;;) {
        watch.restart();
        const next = await source.next();
        watch.pause();
        if (this.#closeReason) throw this.#closeReason;
        if (next.done) break;
        yield next.value;
      }
    } catch (error) {
      if (this.#closeReason) throw this.#closeReason;
      if (idled) throw this.#timeout(`sent no byte of the body for ${this.#idle} ms`);
      throw connectionFault(error, this.#host);
    } finally {
      watch.stop();
      this.close();
    }
  }

  /** Checks the rate only when bytes arrive; the idle limit covers the case that none do. */
  async *#readTimed(): AsyncGenerator<Uint8Array, void, undefined> {
    const began = this.#clock.monotonic();
    let length = 0;
    for await (const chunk of this.#read()) {
      length += chunk.length;
      const spent = this.#clock.monotonic() - began;
      if (spent > this.#idle + length / MIN_BYTES_PER_MS)
        throw this.#timeout(`sends the body too slowly: only ${length} bytes in ${spent} ms`);
      yield chunk;
    }
  }

  #timeout(reason: string): UpstreamFailure {
    return new UpstreamFailure('timeout', this.#host, reason);
  }
}

/** Reads what is left of an unwanted body if it is small; otherwise ends the connection. */
export function discard(body: Body): void {
  const drain = async (): Promise<void> => {
    let length = 0;
    for await (const chunk of body.timed) {
      length += chunk.length;
      if (length > MAX_DRAIN_BYTES) return;
    }
  };
  // A connection that breaks here is lost, and nothing depends on it.
  drain().catch(() => undefined);
}

/**
 * Reads a whole body into memory.
 * @param limit bytes.
 * @param what names the body in the failure.
 * @throws UpstreamFailure `protocol` when it is larger, `timeout` when it arrives too slowly, or as the body's iteration.
 */
export async function collect(body: Body, host: string, limit: number, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body.timed) {
    length += chunk.length;
    if (length > limit)
      throw new UpstreamFailure('protocol', host, `${what} is larger than the limit of ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}
