import type {IncomingMessage, ServerResponse} from 'node:http';
import {type Clock, type IdleWatch, watchIdle} from '../clock.ts';
import {type ErrorCode, OciError} from '../oci/errors.ts';

/** A client that sends nothing for this long while more of its body is expected has stalled. */
const MAX_SILENCE_MS = 60_000;

/** The body of a request. */
export interface RequestBody {
  /** Bytes, as the client declared them; undefined where it did not (RFC 9112, section 6). */
  readonly length: number | undefined;
  /**
   * The bytes as they arrive, to be read once. A client that waits for `100 Continue` gets it with the first read. A
   * chunk stays valid after the next one is requested.
   * @param code of the error for a body that ends too early
   * @throws OciError with 408 when the client stalls, with 400 when its connection ends before the body does
   */
  read(code: ErrorCode): AsyncIterable<Uint8Array>;
}

/** A body that arrives over a connection, and how far it has been read. */
export interface IncomingBody extends RequestBody {
  /** Bytes that were read. */
  readonly received: number;
  /** The client will not send its body without `100 Continue`, and has not got that. */
  readonly isAwaited: boolean;
}

export function createIncomingBody(
  request: IncomingMessage,
  response: ServerResponse,
  clock: Clock,
): IncomingBody {
  return new MessageBody(request, response, clock);
}

class MessageBody implements IncomingBody {
  received = 0;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #clock: Clock;
  #isInvited = false;

  constructor(request: IncomingMessage, response: ServerResponse, clock: Clock) {
    this.#request = request;
    this.#response = response;
    this.#clock = clock;
  }

  get length(): number | undefined {
    const {headers} = this.#request;
    if (headers['transfer-encoding'] !== undefined) return undefined;
    return Number(headers['content-length'] ?? 0);
  }

  /** RFC 9110, section 10.1.1. */
  get isAwaited(): boolean {
    const {httpVersion, headers} = this.#request;
    return !this.#isInvited && httpVersion === '1.1' && headers.expect?.toLowerCase() === '100-continue';
  }

  read(code: ErrorCode): AsyncIterable<Buffer> {
    return {[Symbol.asyncIterator]: () => this.#pass(code)};
  }

  /** Not a generator: `return` on one that awaits the client would keep waiting for it. */
  #pass(code: ErrorCode): AsyncIterator<Buffer, void> {
    const reader = createReader(this.#request);
    let watch: IdleWatch | undefined;
    const begin = (): IdleWatch => {
      this.#invite();
      return watchIdle(this.#clock, MAX_SILENCE_MS, () => reader.fail(stalled(code, this.received)));
    };
    const end = (): {done: true; value: undefined} => {
      watch?.stop();
      reader.release();
      return {done: true, value: undefined};
    };
    return {
      next: async () => {
        watch ??= begin();
        try {
          watch.restart();
          const chunk = await reader.next();
          watch.pause();
          if (chunk === 'end') return end();
          if (chunk === 'gone') throw departed(code, this.received);
          this.received += chunk.length;
          return {done: false, value: chunk};
        } catch (error) {
          end();
          throw error;
        }
      },
      return: async () => end(),
    };
  }

  #invite(): void {
    if (!this.isAwaited) return;
    this.#isInvited = true;
    this.#response.writeContinue();
  }
}

interface Reader {
  /** The next bytes, once they are here; else that the body has ended, or that the client has left. */
  next(): Promise<Buffer | 'end' | 'gone'>;
  /** Ends the wait for the client with an error. */
  fail(error: OciError): void;
  /** Leaves the rest of the body to other readers; for this one it has ended. */
  release(): void;
}

const EVENTS = ['readable', 'end', 'error', 'close'] as const;

function createReader(request: IncomingMessage): Reader {
  let wait: PromiseWithResolvers<void> | undefined;
  let released = false;
  const wake = () => wait?.resolve();
  for (const event of EVENTS) request.on(event, wake);
  return {
    fail: (error) => wait?.reject(error),
    async next() {
      for (;;) {
        if (released) return 'end';
        const chunk: Buffer | null = request.read();
        if (chunk !== null) return chunk;
        if (request.readableEnded) return 'end';
        if (request.destroyed) return 'gone';
        wait = Promise.withResolvers();
        await wait.promise;
      }
    },
    release() {
      released = true;
      for (const event of EVENTS) request.off(event, wake);
      wake();
    },
  };
}

const stalled = (code: ErrorCode, received: number): OciError =>
  new OciError(code, {
    status: 408,
    message: `no data arrived for ${MAX_SILENCE_MS / 1000} s after the first ${received} bytes of the body; start again, or GET the upload's location to see how many bytes of it are here`,
    headers: {Connection: 'close'},
  });

/** The client is gone, so only the log gets this message. */
const departed = (code: ErrorCode, received: number): OciError =>
  new OciError(code, {message: `the connection ended after the first ${received} bytes of the body`});

/**
 * The whole body, in memory.
 * @param limits `maxBytes`, and the error for a longer body: thrown before a byte is read where the client declares it
 */
export async function readWhole(
  body: RequestBody,
  {maxBytes, code, tooLarge}: {maxBytes: number; code: ErrorCode; tooLarge: () => OciError},
): Promise<Buffer> {
  if ((body.length ?? 0) > maxBytes) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let received = 0;
  for await (const chunk of body.read(code)) {
    received += chunk.length;
    if (received > maxBytes) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
