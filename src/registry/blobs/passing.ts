import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, createDigester, type Digester} from '../../oci/digest.ts';
import {DigestMismatch} from '../failure.ts';
import {UNRESERVED} from '../space.ts';
import {download} from './download.ts';
import {
  type BytesBehind,
  createProgress,
  createWaiters,
  follow,
  MAX_HELD_BYTES,
  MAX_HOLD_MS,
  type Prefix,
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
   * @param prefix what the client has of an earlier download that was not verified: unless the blob begins with it, the last
   * byte does not follow
   * @throws BlobAbsent, DigestMismatch or UpstreamFailure, also from the iteration
   */
  whole(wanted: Wanted, from: number, prefix?: Prefix): Promise<AsyncIterable<Uint8Array>>;
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

  async function whole(
    source: Source,
    wanted: Wanted,
    {from, prefix}: {from: number; prefix: Prefix | undefined},
    waiting: AbortSignal | undefined,
  ) {
    const end = new AbortController();
    const leave = () => end.abort(waiting?.reason);
    const {signal} = end;
    const progress = createProgress();
    hold(wanted, progress, signal);
    const pace = new ReadersPace(progress, {from, prefix}, signal);
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
      () => (pace.hasPrefix ? progress.verify() : progress.fail(otherPrefix())),
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
      whole: (wanted, from, prefix) => whole(source, wanted, {from, prefix}, waiting),
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
  readonly #prefix: Prefix | undefined;
  #check: PrefixCheck | undefined;
  #appended = 0;
  #taken: number;
  #change = Promise.withResolvers<void>();

  constructor(
    progress: Progress,
    {from, prefix}: {from: number; prefix: Prefix | undefined},
    end: AbortSignal,
  ) {
    this.#progress = progress;
    this.#prefix = prefix;
    this.#check = prefix && new PrefixCheck(prefix);
    this.#from = from;
    this.#end = end;
    this.#taken = from;
    end.addEventListener('abort', () => this.#change.resolve(), {once: true});
  }

  get size(): number {
    return Math.min(this.#appended, this.#taken);
  }

  /** Whether the blob begins with what the client has; true where that is not in question. */
  get hasPrefix(): boolean {
    return this.#check?.isMatched ?? true;
  }

  async append(chunk: Uint8Array): Promise<void> {
    this.#check?.update(chunk);
    this.#appended += chunk.length;
    while (!this.#progress.isHeld && this.#appended - this.#taken > MAX_AHEAD_BYTES) {
      this.#end.throwIfAborted();
      await this.#change.promise;
    }
  }

  async truncate(): Promise<void> {
    this.#appended = 0;
    this.#check = this.#prefix && new PrefixCheck(this.#prefix);
  }

  async *read(): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of follow(this.#progress, NOTHING_BEHIND, this.#from)) {
      yield chunk;
      this.#taken += chunk.length;
      this.#progress.forgetSpooled(this.#taken);
      this.#change.resolve();
      this.#change = Promise.withResolvers();
    }
  }
}

/** Compares the beginning of a download with what was received of an earlier one. */
class PrefixCheck {
  isMatched = false;
  readonly #prefix: Prefix;
  readonly #digester: Digester;
  #left: number;

  constructor(prefix: Prefix) {
    this.#prefix = prefix;
    this.#digester = createDigester(algorithmOf(prefix.digest));
    this.#left = prefix.bytes;
  }

  /** @throws DigestMismatch */
  update(chunk: Uint8Array): void {
    if (this.#left === 0) return;
    const part = chunk.subarray(0, this.#left);
    this.#digester.update(part);
    this.#left -= part.length;
    if (this.#left > 0) return;
    this.isMatched = this.#digester.digest() === this.#prefix.digest;
    if (!this.isMatched) throw otherPrefix();
  }
}

const otherPrefix = (): DigestMismatch =>
  new DigestMismatch('the blob does not begin with what its client has received of an earlier download');

/** What the client has not taken is in memory. */
const notInMemory = (at: number): never => {
  throw new Error(`byte ${at} of a blob that is passed on is not in memory any more`);
};
const NOTHING_BEHIND: BytesBehind = {read: notInMemory, rest: notInMemory};

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
