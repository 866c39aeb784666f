import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {UNRESERVED} from '../space.ts';
import {download} from './download.ts';
import {
  createProgress,
  createWaiters,
  follow,
  MAX_HELD_BYTES,
  MAX_HOLD_MS,
  type Progress,
  untilBegun,
} from './progress.ts';
import {openPart, requireLength, type Source, type Wanted} from './source.ts';

/** A blob that is passed on from its source to one client without being kept. */
export interface Passage {
  /**
   * The whole blob from the offset `from` on. All of it is requested and hashed; a connection that breaks is resumed, and
   * the last byte is withheld until the digest is verified. A small blob is held back until then, so that wrong bytes
   * can be replaced. Resolves when the first byte may be sent, so that a failure can still become a status.
   * @throws BlobAbsent, DigestMismatch or UpstreamFailure, also from the iteration
   */
  whole(wanted: Wanted, from: number): Promise<AsyncIterable<Uint8Array>>;
  /** As `openPart`. */
  part(wanted: Wanted, start: number, end: number): Promise<AsyncIterable<Uint8Array>>;
}

export interface Passing {
  /** @param waiting aborted when the client no longer waits */
  from(source: Source, waiting: AbortSignal | undefined): Passage;
}

/** How far ahead of its client a blob is received, in bytes. */
const MAX_AHEAD_BYTES = 256 * 1024;
/** Small blobs that are held in memory at the same time, each until its client has it. Further ones are sent as they come. */
const MAX_HELD = 64;

/** Passes blobs on that cannot be kept here. */
export function createPassing({clock, events}: {clock: Clock; events: Events}): Passing {
  let held = 0;

  /** Lets a blob be held back, if it is small, until so many are. Gives its place back when the signal is aborted. */
  function hold({size}: Wanted, progress: Progress, end: AbortSignal): void {
    if (size !== undefined && size > MAX_HELD_BYTES) return;
    if (held >= MAX_HELD) {
      progress.endHold();
      return;
    }
    held += 1;
    const endWait = clock.after(MAX_HOLD_MS, () => progress.endHold());
    const release = () => {
      held -= 1;
      endWait();
    };
    end.addEventListener('abort', release, {once: true});
  }

  async function whole(source: Source, wanted: Wanted, from: number, waiting: AbortSignal | undefined) {
    const end = new AbortController();
    const leave = () => end.abort(waiting?.reason);
    const {signal} = end;
    const progress = createProgress();
    hold(wanted, progress, signal);
    const pace = new ReadersPace(progress, from, signal);
    waiting?.addEventListener('abort', leave, {once: true});
    if (waiting?.aborted) leave();
    signal.addEventListener('abort', () => waiting?.removeEventListener('abort', leave), {once: true});
    download({
      digest: wanted.digest,
      source: atReadersPace(source, wanted),
      expected: wanted.size,
      found: [],
      spool: pace,
      room: UNRESERVED,
      progress,
      demand: createWaiters(signal),
      clock,
      events,
      stopping: signal,
    }).then(
      () => progress.verify(),
      (error) => progress.fail(signal.aborted ? signal.reason : error),
    );
    try {
      await untilBegun(progress);
    } catch (error) {
      end.abort();
      throw error;
    }
    return untilRead(pace.read(), end);
  }

  return {
    from: (source, waiting) => ({
      whole: (wanted, from) => whole(source, wanted, from, waiting),
      part: (wanted, start, end) => openPart(source, wanted, start, end),
    }),
  };
}

/** The client is about to receive the length that it was told, so an answer with another one is refused. */
const atReadersPace = (source: Source, {size}: Wanted): Source => ({
  ...source,
  async open(_demand, range) {
    const answer = await source.stream(range);
    try {
      requireLength(source.host, answer?.size, size);
    } catch (error) {
      answer?.close();
      throw error;
    }
    return answer;
  },
});

/** Takes the place of a spool: keeps in memory what the client has not taken, and lets more follow when it has. */
class ReadersPace {
  readonly #progress: Progress;
  readonly #from: number;
  readonly #end: AbortSignal;
  #appended = 0;
  #taken: number;
  #change = Promise.withResolvers<void>();

  constructor(progress: Progress, from: number, end: AbortSignal) {
    this.#progress = progress;
    this.#from = from;
    this.#end = end;
    this.#taken = from;
    end.addEventListener('abort', () => this.#change.resolve(), {once: true});
  }

  get size(): number {
    return Math.min(this.#appended, this.#taken);
  }

  async append(chunk: Uint8Array): Promise<void> {
    this.#appended += chunk.length;
    while (!this.#progress.isHeld && this.#appended - this.#taken > MAX_AHEAD_BYTES) {
      this.#end.throwIfAborted();
      await this.#change.promise;
    }
  }

  async truncate(): Promise<void> {
    this.#appended = 0;
  }

  async *read(): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of follow(this.#progress, notInMemory, this.#from)) {
      yield chunk;
      this.#taken += chunk.length;
      this.#progress.forgetSpooled(this.#taken);
      this.#change.resolve();
      this.#change = Promise.withResolvers();
    }
  }
}

/** What the client has not taken is in memory. */
async function notInMemory(at: number): Promise<never> {
  throw new Error(`byte ${at} of a blob that is passed on is not in memory any more`);
}

async function* untilRead(
  bytes: AsyncIterable<Uint8Array>,
  end: AbortController,
): AsyncGenerator<Uint8Array, void> {
  try {
    yield* bytes;
  } finally {
    end.abort();
  }
}
