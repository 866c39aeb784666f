import type {IncomingMessage, ServerResponse} from 'node:http';
import {type Clock, type IdleWatch, watchIdle} from '../clock.ts';
import {type ErrorCode, OciError} from '../oci/errors.ts';
import type {BodyLimits} from './limits.ts';

/** The body of a request. */
export interface RequestBody {
  /** Bytes, as the client declared them; undefined where it did not (RFC 9112, section 6). */
  readonly length: number | undefined;
  /** The bytes that a form may have, by `limits.bodies.maxForm`. */
  readonly maxForm: number;
  /**
   * The bytes as they arrive, to be read once. A client that waits for `100 Continue` gets it with the first read. A
   * chunk stays valid after the next one is requested.
   * @param code of the error for a body that ends too early
   * @throws OciError with 408 when the client stalls or is too slow, with 400 when its connection ends before the body does
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
  parts: BodyParts,
): IncomingBody {
  return new MessageBody(request, response, parts);
}

interface BodyParts {
  limits: BodyLimits;
  clock: Clock;
}

class MessageBody implements IncomingBody {
  received = 0;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #limits: BodyLimits;
  readonly #clock: Clock;
  #isInvited = false;

  constructor(request: IncomingMessage, response: ServerResponse, {limits, clock}: BodyParts) {
    this.#request = request;
    this.#response = response;
    this.#limits = limits;
    this.#clock = clock;
  }

  get maxForm(): number {
    return this.#limits.maxForm;
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
    const pace = createPace(this.#limits);
    const {timeout} = this.#limits;
    let watch: IdleWatch | undefined;
    const begin = (): IdleWatch => {
      this.#invite();
      return watchIdle(this.#clock, timeout, () => reader.fail(stalled(code, this.received, timeout)));
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
          const asked = this.#clock.monotonic();
          const chunk = await reader.next();
          watch.pause();
          if (chunk === 'end') return end();
          if (chunk === 'gone') throw departed(code, this.received);
          this.received += chunk.length;
          const isKept = pace.isKept(this.#clock.monotonic() - asked, chunk.length);
          if (!isKept && !this.#request.complete) throw slow(code, this.received, this.#limits);
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

/** Notices a client that always sends a little before it counts as silent. */
interface Pace {
  /**
   * @param waited milliseconds for a chunk of `length` bytes; the time in which nothing was asked of the client is not its own
   * @returns false when too little has arrived
   */
  isKept(waited: number, length: number): boolean;
}

/** Looks at how much arrived whenever a `timeout` of waiting has passed, and begins to count again. */
export function createPace({timeout, minRate}: Pick<BodyLimits, 'timeout' | 'minRate'>): Pace {
  let ms = 0;
  let bytes = 0;
  return {
    isKept(waited, length) {
      ms += waited;
      bytes += length;
      if (ms < timeout) return true;
      const isFast = bytes >= (minRate * ms) / 1000;
      ms = 0;
      bytes = 0;
      return isFast;
    },
  };
}

const stalled = (code: ErrorCode, received: number, timeout: number): OciError =>
  tooSlow(
    code,
    'limits.bodies.timeout',
    `no data arrived for ${timeout / 1000} s after the first ${received} bytes of the body`,
  );

const slow = (code: ErrorCode, received: number, {timeout, minRate}: BodyLimits): OciError =>
  tooSlow(
    code,
    'limits.bodies.minRate',
    `the body, of which ${received} bytes arrived, had fewer than ${minRate} bytes a second over ${timeout / 1000} s, which is the least that limits.bodies.minRate allows`,
  );

const tooSlow = (code: ErrorCode, limit: string, problem: string): OciError =>
  new OciError(code, {
    status: 408,
    limit,
    message: `${problem}; start again, or GET the upload's location to see how many bytes of it are here`,
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
