import {LRUCache} from 'lru-cache';
import type {Action} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {RequestKind} from '../events.ts';
import type {LoginUse} from '../identity/authenticator.ts';
import type {Digest} from '../oci/digest.ts';
import type {RepositoryName} from '../oci/name.ts';
import {areCurrent} from '../registry/generations.ts';
import type {Repeat} from '../registry/repeat.ts';
import type {BlobFile} from '../storage/blob-files.ts';
import {agedAnswer} from './aged-answer.ts';
import type {Field} from './answer.ts';
import {type RenderedAnswer, renderedAnswer, renderedBytes} from './rendered-answer.ts';

/** An answer that a request was given, to be given to equal requests. Plain data, which another thread can use. */
export interface PreparedAnswer {
  readonly status: number;
  /** Without those that every answer has of its own: `X-Request-Id`, `Date` and those of the connection. */
  readonly fields: readonly Field[];
  /** Undefined where an answer has none, to HEAD, and 304, and where it lies in a file. */
  readonly body: Buffer | undefined;
  /** All of the body. */
  readonly file: BlobFile | undefined;
  /** The caller's own name. */
  readonly caller: string;
  readonly kind: RequestKind;
  readonly action: Action | undefined;
  readonly registry: string | undefined;
  readonly repository: RepositoryName | undefined;
  readonly digest: Digest | undefined;
  readonly outcome: 'hit' | 'done';
  /** Its `Cache-Status`; undefined where the cache has nothing to do with it. */
  readonly cache: string | undefined;
  readonly repeat: Repeat;
  /** What is reported of the credential each time. */
  readonly login: LoginUse;
}

/** The same as the bytes that are written. */
export interface ReadyAnswer extends PreparedAnswer {
  readonly rendered: RenderedAnswer;
  /** By how much the wall clock was ahead of the monotonic one when it was prepared. Milliseconds. */
  readonly ahead: number;
}

/** Prepared answers by the keys of their requests, as long as they hold. */
export interface AnswerTable {
  find(key: string): ReadyAnswer | undefined;
  put(key: string, answer: PreparedAnswer): void;
  /** Changes how many bytes it may hold; the least recently used answers that no longer fit go. */
  resize(maxBytes: number): void;
}

export interface AnswerTableParts {
  /** Those of `Generations`. */
  slots: Int32Array;
  /** Bytes to hold; the least recently used answers go first. */
  maxBytes: number;
  clock: Pick<Clock, 'now' | 'monotonic'>;
}

/** Both clocks are read one after the other, in whole milliseconds. */
const MAX_DRIFT_MS = 20;
/** What an entry costs beside its content. */
const OVERHEAD_BYTES = 2048;

export const createAnswerTable = (parts: AnswerTableParts): AnswerTable => new LruAnswerTable(parts);

class LruAnswerTable implements AnswerTable {
  readonly #slots: Int32Array;
  readonly #clock: AnswerTableParts['clock'];
  #entries: LRUCache<string, ReadyAnswer> | undefined;

  constructor({slots, maxBytes, clock}: AnswerTableParts) {
    this.#slots = slots;
    this.#clock = clock;
    this.#entries = entriesOf(maxBytes);
  }

  find(key: string): ReadyAnswer | undefined {
    const entry = this.#entries?.get(key, FOUND);
    if (!entry) return undefined;
    const {from, until} = entry.repeat;
    const now = this.#clock.now();
    const isCurrent = this.#isCurrent(entry, now);
    if (isCurrent && now >= from && now < until) return entry;
    const aged = isCurrent ? agedAnswer(entry, now) : undefined;
    if (aged) this.put(key, aged);
    else this.#entries?.delete(key);
    return aged && this.#entries?.get(key);
  }

  put(key: string, answer: PreparedAnswer): void {
    const ahead = this.#clock.now() - this.#clock.monotonic();
    this.#entries?.set(key, {...answer, rendered: renderedAnswer(answer), ahead});
  }

  resize(maxBytes: number): void {
    const before = this.#entries;
    const after = entriesOf(maxBytes);
    // Those that were used last come last. The time that `dump` takes grows with the square of their number.
    before?.rforEach((answer, key) => after?.set(key, answer));
    this.#entries = after;
  }

  /** What depends on the time is over once the clock is set back: it would hold for longer. */
  #isCurrent({repeat: {from, generations}, ahead}: ReadyAnswer, now: number): boolean {
    if (!areCurrent(this.#slots, generations)) return false;
    return from === Number.NEGATIVE_INFINITY || now - this.#clock.monotonic() > ahead - MAX_DRIFT_MS;
  }
}

const sizeOf = ({body}: ReadyAnswer, key: string): number =>
  (body?.length ?? 0) + renderedBytes(body) + key.length + OVERHEAD_BYTES;

/** One for all: without it, lru-cache makes an object for each call. */
const FOUND: LRUCache.GetOptions<string, ReadyAnswer, unknown> = {};

/** An empty table; undefined if `maxBytes` is too little for a single answer. */
const entriesOf = (maxBytes: number): LRUCache<string, ReadyAnswer> | undefined =>
  maxBytes < OVERHEAD_BYTES ? undefined : new LRUCache({maxSize: maxBytes, sizeCalculation: sizeOf});
