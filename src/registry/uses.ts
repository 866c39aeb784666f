import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../clock.ts';
import type {Digest} from '../oci/digest.ts';
import {
  type Change,
  DiskFull,
  fullReference,
  type Metadata,
  type RepositoryKey,
} from '../storage/metadata.ts';

/** Counts how often manifests are served, by which eviction decides what stays. */
export interface Uses {
  /** A manifest was served. Costs next to nothing; until the next flush, further uses of it are the same use. */
  record(repository: RepositoryKey, digest: Digest): void;
  /** Whether it was served within the last minute. */
  isRecent(repository: RepositoryKey, digest: Digest): boolean;
  /**
   * Writes the uses since the last flush. What cannot be written now is written by the next flush, a full disk is no
   * reason to say so. @throws whatever else the commit throws
   */
  flush(): Promise<void>;
}

export interface UsesParts {
  metadata: Pick<Metadata, 'commit' | 'cacheAge'>;
  clock: Clock;
}

/** How long after it was written a use is recent. */
const RECENT_MS = 60_000;
/** Manifests whose uses wait to be written; those of further ones are lost. */
const MAX_WAITING = 100_000;
/** Uses in one commit, which is handed to the writer as a whole. */
const BATCH = 500;

export const createUses = (parts: UsesParts): Uses => new RecordedUses(parts);

interface Use {
  readonly repository: RepositoryKey;
  readonly digest: Digest;
}

class RecordedUses implements Uses {
  readonly #metadata: UsesParts['metadata'];
  readonly #clock: Clock;
  /** The uses since the last flush, by the full reference. */
  #current = new Map<string, Use>();
  /** Those of the last flush, and when it began on the monotonic clock. */
  #flushed: {uses: ReadonlyMap<string, Use>; at: number} = {uses: new Map(), at: Number.NEGATIVE_INFINITY};

  constructor({metadata, clock}: UsesParts) {
    this.#metadata = metadata;
    this.#clock = clock;
  }

  record(repository: RepositoryKey, digest: Digest): void {
    if (this.#current.size >= MAX_WAITING) return;
    this.#current.set(fullReference(repository, digest), {repository, digest});
  }

  isRecent(repository: RepositoryKey, digest: Digest): boolean {
    const key = fullReference(repository, digest);
    const {uses, at} = this.#flushed;
    const isFlushedLately = this.#clock.monotonic() - at < RECENT_MS;
    return this.#current.has(key) || (isFlushedLately && uses.has(key));
  }

  async flush(): Promise<void> {
    const uses = this.#current;
    this.#current = new Map();
    this.#flushed = {uses, at: this.#clock.monotonic()};
    const waiting = [...uses];
    try {
      const age = await this.#metadata.cacheAge();
      while (waiting.length > 0) {
        await this.#commit(waiting.slice(0, BATCH), age);
        waiting.splice(0, BATCH);
        await nextTurn();
      }
    } catch (error) {
      this.#keep(waiting);
      if (!(error instanceof DiskFull)) throw error;
    }
  }

  async #commit(uses: readonly (readonly [string, Use])[], age: number): Promise<void> {
    const at = this.#clock.now();
    await this.#metadata.commit(
      uses.map(([, {repository, digest}]): Change => ({type: 'manifest.used', repository, digest, at, age})),
    );
  }

  #keep(uses: readonly (readonly [string, Use])[]): void {
    for (const [key, use] of uses) {
      if (this.#current.size >= MAX_WAITING) return;
      this.#current.set(key, use);
    }
  }
}
