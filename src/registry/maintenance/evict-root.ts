import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Disk} from '../../storage/disk.ts';
import {type Change, DiskFull, type Metadata, type Precondition} from '../../storage/metadata.ts';
import type {Fills} from '../blobs/fills.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import type {Generations} from '../generations.ts';
import type {Memory} from '../memory.ts';
import type {ReferrerLists} from '../referrers/lists.ts';
import type {Uses} from '../uses.ts';
import type {BlobWatch} from './blob-watch.ts';
import type {ImageRoot, Inventory, StoredBlob} from './inventory.ts';

export interface RootEvictionParts {
  metadata: Metadata;
  lifecycle: BlobLifecycle;
  memory: Memory;
  lists: Pick<ReferrerLists, 'evicted'>;
  uses: Pick<Uses, 'isRecent'>;
  fills: Pick<Fills, 'running' | 'inFlight'>;
  watch: BlobWatch;
  generations: Pick<Generations, 'endRepository' | 'endBlob'>;
  /** Has requests reported that were counted elsewhere. */
  handOver(): Promise<void>;
  disk: Disk;
  clock: Clock;
}

export interface EvictedRoot {
  /** Of the blobs that were deleted. */
  bytes: number;
  /** The roots of the inventory that have changed with it. */
  changed: readonly ImageRoot[];
}

/** On what terms a root goes. */
export interface EvictionTerms {
  /** Only if it was not used since then, in milliseconds since the epoch, nor within the last minute. */
  idleSince?: number;
  /** What the cache's age rises to. */
  age?: number;
  /** Ends the eviction between two blobs: the next round deletes those that are left. */
  signal: AbortSignal;
}

/** How long what was used, or has just come, is left alone. */
const RECENT_MS = 60_000;
/** Members that are looked up without giving way to requests: an image may have thousands of signatures. */
const MEMBERS_PER_TURN = 100;

/** Evicts image roots: the manifests in one commit, then the blobs that nobody needs any more. */
export class RootEviction {
  readonly #parts: RootEvictionParts;

  constructor(parts: RootEvictionParts) {
    this.#parts = parts;
  }

  /**
   * @returns what it freed; undefined, with nothing changed, for a root that is kept, being pulled, or used meanwhile
   * @throws DiskFull when not even the ballast makes room for the commit; StoreMissing
   */
  async evict(
    inventory: Inventory,
    root: ImageRoot,
    {idleSince, age, signal}: EvictionTerms,
  ): Promise<EvictedRoot | undefined> {
    const {metadata, memory, lists} = this.#parts;
    const {repository, members} = root;
    const blobs = inventory.blobsFreedBy(root);
    const isBusy = () => this.#isBusy(root, blobs, idleSince !== undefined);
    if (root.kept !== undefined || (await isBusy())) return undefined;
    // From here on every answer is made anew, and counts as a use at once.
    this.#parts.generations.endRepository(repository);
    await this.#reported(blobs);
    if (await isBusy()) return undefined;
    const changes = this.#changes(root, age);
    const terms = idleSince === undefined ? [] : this.#idle(root, idleSince);
    const subjects = await this.#subjects(root);
    if (!(await this.#withBallast(() => metadata.commit(changes, terms)))) return undefined;
    for (const digest of members) memory.forgetManifest(repository, digest);
    lists.evicted(repository, [...members, ...subjects]);
    const changed = inventory.remove(root);
    return {changed, bytes: await this.deleteAll(blobs, signal)};
  }

  /** Deletes blobs that nothing needs any more; those that something needs stay. @returns the bytes deleted */
  async deleteAll(blobs: readonly StoredBlob[], signal: AbortSignal): Promise<number> {
    const {lifecycle, fills, watch} = this.#parts;
    let bytes = 0;
    await this.#reported(blobs);
    for (const {digest, size} of blobs) {
      if (signal.aborted) break;
      if (fills.running(digest) || watch.isRecent(digest)) continue;
      if (await this.#withBallast(() => lifecycle.evict(digest))) bytes += size;
      await nextTurn();
    }
    return bytes;
  }

  /** Resolves when it is known which of these blobs are being pulled. */
  async #reported(blobs: readonly StoredBlob[]): Promise<void> {
    const {generations, handOver} = this.#parts;
    for (const {digest} of blobs) generations.endBlob(digest);
    await handOver();
  }

  #changes({repository, digest: root, members}: ImageRoot, age: number | undefined): Change[] {
    const at = this.#parts.clock.now();
    const evictions = members.map(
      (digest): Change => ({type: 'manifest.evict', repository, root, digest, at}),
    );
    return age === undefined ? evictions : [...evictions, {type: 'cache-age.put', age}];
  }

  /** What the members refer to: the root's subject need not be linked, and yet has a list that the root was on. */
  async #subjects({repository, members}: ImageRoot): Promise<Digest[]> {
    const subjects: Digest[] = [];
    for (const [index, member] of members.entries()) {
      subjects.push(...(await this.#parts.metadata.ownSubjects(repository, member)));
      if (index % MEMBERS_PER_TURN === MEMBERS_PER_TURN - 1) await nextTurn();
    }
    return subjects;
  }

  #idle({repository, members}: ImageRoot, since: number): Precondition[] {
    const now = this.#parts.clock.now();
    return members.map((digest) => ({type: 'manifest.idle', repository, digest, since, now}));
  }

  /** Whether somebody pulls it, or, unless it goes whatever its uses are, has just used it. */
  async #isBusy(root: ImageRoot, blobs: readonly StoredBlob[], spareUsed: boolean): Promise<boolean> {
    const {uses, watch, clock} = this.#parts;
    const {repository, members} = root;
    if (spareUsed) {
      const usedAt = Math.max(root.lastUsedAt, root.arrivedAt);
      if (clock.now() - usedAt < RECENT_MS) return true;
      if (members.some((digest) => uses.isRecent(repository, digest))) return true;
      if (blobs.some(({digest}) => watch.isRecent(digest))) return true;
    }
    return this.#isArriving(members);
  }

  /** Whether a blob that one of the manifests names is being downloaded. */
  async #isArriving(members: readonly Digest[]): Promise<boolean> {
    const {metadata, fills} = this.#parts;
    for (const [index, manifest] of members.entries()) {
      if (fills.inFlight === 0) return false;
      if (index % MEMBERS_PER_TURN === MEMBERS_PER_TURN - 1) await nextTurn();
      const named = await metadata.references(manifest);
      if (named.some(({digest}) => fills.running(digest))) return true;
    }
    return false;
  }

  /** On a full disk, what deletes something may use the ballast. */
  async #withBallast<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof DiskFull) || (await this.#parts.disk.giveUpBallast()) === 0) throw error;
      return work();
    }
  }
}
