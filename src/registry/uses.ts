import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../clock.ts';
import type {Digest} from '../oci/digest.ts';
import type {RepositoryName} from '../oci/name.ts';
import {type Change, DiskFull, type Metadata, type RepositoryKey} from '../storage/metadata.ts';

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

/** Manifests of repositories, each once. One string for both would cost more to make than all of the lookups. */
class UsedManifests {
  readonly #registries = new Map<string, Map<RepositoryName, Set<Digest>>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has({registry, name}: RepositoryKey, digest: Digest): boolean {
    return this.#registries.get(registry)?.get(name)?.has(digest) ?? false;
  }

  /** Does nothing where as many wait as may. */
  add(repository: RepositoryKey, digest: Digest): void {
    if (this.has(repository, digest) || this.#size >= MAX_WAITING) return;
    const {registry, name} = repository;
    const names = this.#registries.get(registry) ?? new Map<RepositoryName, Set<Digest>>();
    const digests = names.get(name) ?? new Set();
    this.#registries.set(registry, names.set(name, digests.add(digest)));
    this.#size += 1;
  }

  *[Symbol.iterator](): Generator<Use, void> {
    for (const [registry, names] of this.#registries)
      for (const [name, digests] of names)
        for (const digest of digests) yield {repository: {registry, name}, digest};
  }
}

class RecordedUses implements Uses {
  readonly #metadata: UsesParts['metadata'];
  readonly #clock: Clock;
  /** Since the last flush. */
  #current = new UsedManifests();
  /** Those of the last flush, and when it began on the monotonic clock. */
  #flushed = {uses: new UsedManifests(), at: Number.NEGATIVE_INFINITY};

  constructor({metadata, clock}: UsesParts) {
    this.#metadata = metadata;
    this.#clock = clock;
  }

  record(repository: RepositoryKey, digest: Digest): void {
    this.#current.add(repository, digest);
  }

  isRecent(repository: RepositoryKey, digest: Digest): boolean {
    const {uses, at} = this.#flushed;
    const isFlushedLately = this.#clock.monotonic() - at < RECENT_MS;
    return this.#current.has(repository, digest) || (isFlushedLately && uses.has(repository, digest));
  }

  async flush(): Promise<void> {
    const uses = this.#current;
    this.#current = new UsedManifests();
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
      for (const {repository, digest} of waiting) this.#current.add(repository, digest);
      if (!(error instanceof DiskFull)) throw error;
    }
  }

  async #commit(uses: readonly Use[], age: number): Promise<void> {
    const at = this.#clock.now();
    await this.#metadata.commit(
      uses.map(({repository, digest}): Change => ({type: 'manifest.used', repository, digest, at, age})),
    );
  }
}
