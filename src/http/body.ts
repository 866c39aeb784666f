import type {IncomingMessage} from 'node:http';
import type {Cancel, Clock} from '../clock.ts';
import {type ErrorCode, OciError} from '../oci/errors.ts';
import type {Ctx} from './routing.ts';

/** A client that is waited for and sends nothing for so many milliseconds has stalled. */
const LONGEST_SILENCE = 60_000;

/** Bytes of the body as the client told them; undefined where it did not (RFC 9112, section 6). */
export function lengthOf({headers}: IncomingMessage): number | undefined {
  if (headers['transfer-encoding'] !== undefined) return undefined;
  return Number(headers['content-length'] ?? 0);
}

/** True when the client sends its body only after it was told to (RFC 9110, section 10.1.1). */
export const awaitsInvitation = ({httpVersion, headers}: IncomingMessage): boolean =>
  httpVersion === '1.1' && headers.expect?.toLowerCase() === '100-continue';

/**
 * The body of a request as it arrives, read once; a client that waits to be told is told with the first read. A chunk
 * stays as it is after the next one is asked for.
 * @param code what a body that ends too early makes invalid
 * @throws OciError with 408 when the client stalls, with 400 when its connection ends before the body does
 */
export const bodyOf = (ctx: Ctx, clock: Clock, code: ErrorCode): AsyncIterable<Buffer> => ({
  [Symbol.asyncIterator]: () => createPass(ctx, clock, code),
});

/** No generator: one that is ended while it waits for the client would wait on. */
function createPass({req, res, state}: Ctx, clock: Clock, code: ErrorCode): AsyncIterator<Buffer, void> {
  const reader = createReader(req);
  let stopWatching: Cancel = () => {};
  let begun = false;

  function begin(): void {
    begun = true;
    if (awaitsInvitation(req)) {
      state.invited = true;
      res.writeContinue();
    }
    stopWatching = watch(clock, reader, () => stalled(code, state.received));
  }

  function end(): {done: true; value: undefined} {
    stopWatching();
    reader.release();
    return {done: true, value: undefined};
  }

  return {
    async next() {
      if (!begun) begin();
      try {
        const chunk = await reader.next(clock.monotonic());
        if (chunk === 'end') return end();
        if (chunk === 'gone') throw departed(code, state.received);
        state.received += chunk.length;
        return {done: false, value: chunk};
      } catch (error) {
        end();
        throw error;
      }
    },
    return: async () => end(),
  };
}

interface Reader {
  /** What has arrived, or will: bytes, the body's end, or that the client has left. @param now told by `since` */
  next(now: number): Promise<Buffer | 'end' | 'gone'>;
  /** Since when the client is waited for; undefined while it is not. */
  since(): number | undefined;
  /** Ends the wait for the client. */
  fail(error: OciError): void;
  /** Leaves the rest of the body for others to read; here it has ended. */
  release(): void;
}

const EVENTS = ['readable', 'end', 'error', 'close'] as const;

function createReader(request: IncomingMessage): Reader {
  let wait: PromiseWithResolvers<void> | undefined;
  let since: number | undefined;
  let released = false;
  const stir = () => wait?.resolve();
  for (const event of EVENTS) request.on(event, stir);
  return {
    since: () => since,
    fail: (error) => wait?.reject(error),
    async next(now) {
      since = now;
      try {
        for (;;) {
          if (released) return 'end';
          const chunk: Buffer | null = request.read();
          if (chunk !== null) return chunk;
          if (request.readableEnded) return 'end';
          if (request.destroyed) return 'gone';
          wait = Promise.withResolvers();
          await wait.promise;
        }
      } finally {
        since = undefined;
      }
    },
    release() {
      released = true;
      for (const event of EVENTS) request.off(event, stir);
      stir();
    },
  };
}

/** Ends the wait for a client that has been silent for too long. Time that the bytes' reader takes does not count. */
function watch(clock: Clock, reader: Reader, fault: () => OciError): Cancel {
  const look = (): void => {
    const since = reader.since() ?? clock.monotonic();
    const left = since + LONGEST_SILENCE - clock.monotonic();
    if (left <= 0) reader.fail(fault());
    else cancel = clock.after(left, look);
  };
  let cancel = clock.after(LONGEST_SILENCE, look);
  return () => cancel();
}

const stalled = (code: ErrorCode, received: number): OciError =>
  new OciError(code, {
    status: 408,
    message: `nothing came for ${LONGEST_SILENCE / 1000} s after the first ${received} bytes of the body; begin again, or ask with GET where an upload stands`,
    headers: {Connection: 'close'},
  });

/** Nobody reads this answer; the log does. */
const departed = (code: ErrorCode, received: number): OciError =>
  new OciError(code, {message: `the connection ended after the first ${received} bytes of the body`});

/**
 * The whole body, in memory.
 * @param most bytes; `tooLarge` is thrown before a byte is read where the client told its length
 */
export async function readWhole(
  ctx: Ctx,
  clock: Clock,
  {most, code, tooLarge}: {most: number; code: ErrorCode; tooLarge: () => OciError},
): Promise<Buffer> {
  if ((lengthOf(ctx.req) ?? 0) > most) throw tooLarge();
  const chunks: Buffer[] = [];
  for await (const chunk of bodyOf(ctx, clock, code)) {
    if (ctx.state.received > most) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
