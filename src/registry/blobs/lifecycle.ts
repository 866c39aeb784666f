import type {Clock} from '../../clock.ts';
import {isRefusedByDisk} from '../../error-code.ts';
import type {Digest} from '../../oci/digest.ts';
import {type BlobStore, StoreMissing} from '../../storage/blob-store.ts';
import {
  type Change,
  DiskFull,
  type Metadata,
  type Origin,
  type Precondition,
} from '../../storage/metadata.ts';
import type {Spool} from '../../storage/spool.ts';
import {createKeyedMutex, type KeyedMutex} from '../keyed.ts';
import type {Memory} from '../memory.ts';
import type {Space} from '../space.ts';
import type {DamagedBlobs} from './damaged.ts';
import {type BlobProblem, type Inspection, inspectBlob, noPace, type ReadingPace} from './inspection.ts';

/** Changes blobs' bytes and their rows together: what is being stored is not removed meanwhile. */
export interface BlobLifecycle {
  /**
   * Makes the content of a verified spool a stored blob, durably, and commits its row together with `also`. It replaces
   * bytes that are already stored under the digest: those may have been damaged since they were verified.
   * @throws what the disk or the metadata threw. Then no bytes without a row stay in the store, and the caller discards
   * the spool
   */
  publish(digest: Digest, spool: Spool, also?: readonly Change[]): Promise<void>;
  /**
   * The size of a stored blob whose bytes are here. A copy whose bytes the disk has lost is forgotten, with what is left
   * of them, and fetched again. Row and bytes of a blob that was pushed here stay as they are, and it is reported: a push
   * of the blob repairs it, and so does restoring a backup.
   * @throws StoreMissing when the whole store is missing, so that nothing is known of any blob
   */
  stored(digest: Digest): Promise<number | undefined>;
  /** Does what `stored` does, and tells what it found. @throws StoreMissing as well */
  compare(digest: Digest): Promise<BlobComparison>;
  /**
   * Hashes the stored bytes of a blob. What is bad is set aside: the row of a copy is removed, so that it is fetched
   * again; a blob that was pushed here is missing until it is pushed again. Neither is served from memory any more, and
   * either is reported. A row that names a wrong size is corrected.
   * Only what is still bad when nothing else stores or deletes the blob counts as bad.
   * @throws StoreMissing when the whole store is missing
   */
  check(digest: Digest, options?: CheckOptions): Promise<BlobCheck>;
  /** Whether bytes are here that no row records. */
  isUnrecorded(digest: Digest): Promise<boolean>;
  /** Removes a blob's bytes unless a repository is linked to it. @returns whether it did */
  delete(digest: Digest): Promise<boolean>;
  /**
   * Removes the bytes of a copy that no stored manifest names. The repositories' links to it stay: they are permission to
   * fetch it again. @returns whether it did; @throws DiskFull when the disk has no space for the record of it
   */
  evict(digest: Digest): Promise<boolean>;
  /** Ends a deletion that a process began before it died. @returns whether there was one */
  endDeletion(digest: Digest): Promise<boolean>;
  /** Removes the bytes of a blob that has no row, as a process that died may have left them. @returns whether it did */
  deleteOrphan(digest: Digest): Promise<boolean>;
}

export type BlobCheck =
  | Exclude<Inspection, {state: BlobProblem}>
  /** `local` when any repository's link to it is. */
  | {state: BlobProblem; origin: Origin};

/** What a row and the size of its file say. */
export type BlobComparison =
  | {state: 'sound'; size: number}
  | {state: 'absent'}
  /** The origin is not known while the disk takes no commit. */
  | {state: 'missing' | 'damaged'; origin: Origin | undefined};

export interface CheckOptions {
  /** Changes nothing. */
  dryRun?: boolean;
  pace?: ReadingPace;
}

export interface BlobLifecycleParts {
  store: BlobStore;
  metadata: Metadata;
  /** Is told what is stored and deleted. */
  space: Pick<Space, 'changed'>;
  memory: Pick<Memory, 'forgetBlob'>;
  damaged: DamagedBlobs;
  clock: Clock;
}

export const createBlobLifecycle = (parts: BlobLifecycleParts): BlobLifecycle => new StoredBlobs(parts);

class StoredBlobs implements BlobLifecycle {
  readonly #store: BlobStore;
  readonly #metadata: Metadata;
  readonly #space: BlobLifecycleParts['space'];
  readonly #memory: BlobLifecycleParts['memory'];
  readonly #damaged: DamagedBlobs;
  readonly #clock: Clock;
  readonly #mutex: KeyedMutex = createKeyedMutex();

  constructor(parts: BlobLifecycleParts) {
    this.#store = parts.store;
    this.#metadata = parts.metadata;
    this.#space = parts.space;
    this.#memory = parts.memory;
    this.#damaged = parts.damaged;
    this.#clock = parts.clock;
  }

  publish(digest: Digest, spool: Spool, also: readonly Change[] = []): Promise<void> {
    return this.#mutex.run(digest, async () => {
      // A process died while it deleted the blob. The commit refuses to store it before that is done.
      if (await this.#isMarked(digest)) await this.#removeMarked(digest);
      const before = (await this.#metadata.blob(digest))?.size;
      await this.#store.publish(digest, spool);
      // The size is complete only now: what was appended last may have waited for the disk.
      const put = {type: 'blob.put' as const, digest, size: spool.size, at: this.#clock.now()};
      try {
        if (!(await this.#metadata.commit([put, ...also])))
          throw new Error(`blob ${digest} is being deleted`);
      } catch (error) {
        await this.#removeUnrecorded(digest).catch(() => {});
        throw error;
      }
      this.#damaged.isSettled(digest);
      this.#space.changed(digest, before, put.size);
    });
  }

  async stored(digest: Digest): Promise<number | undefined> {
    const found = await this.compare(digest);
    return found.state === 'sound' ? found.size : undefined;
  }

  async compare(digest: Digest): Promise<BlobComparison> {
    const found = await this.#look(digest);
    if (found.state === 'absent' || found.state === 'sound') return found;
    // Looked at again under the mutex: the blob may have been deleted or stored again meanwhile.
    return this.#mutex.run(digest, async () => {
      const now = await this.#look(digest);
      if (now.state === 'absent' || now.state === 'sound') return now;
      const origin = await this.#removeCopy(digest);
      if (origin === 'local') this.#report(digest, now.state, origin);
      return {...now, origin};
    });
  }

  async check(digest: Digest, {dryRun = false, pace = noPace}: CheckOptions = {}): Promise<BlobCheck> {
    // Reading takes long. A push of the blob does not wait for it.
    const first = await this.#inspect(digest, pace);
    if (first.state === 'sound') this.#damaged.isSettled(digest);
    if (first.state === 'sound' && first.isRecorded) return first;
    return this.#mutex.run(digest, async () => {
      const found = await this.#inspect(digest, noPace);
      const {state} = found;
      if (state === 'absent') return {state};
      if (state !== 'sound') {
        const origin = dryRun ? await this.#originOf(digest) : await this.#setAside(digest, state);
        if (dryRun) this.#damaged.found(digest, state, origin);
        else this.#report(digest, state, origin);
        return {state, origin};
      }
      if (!found.isRecorded && !dryRun) await this.#correctSize(digest, found.size);
      return found;
    });
  }

  isUnrecorded(digest: Digest): Promise<boolean> {
    return this.#mutex.run(digest, async () => {
      if (await this.#metadata.blob(digest)) return false;
      return (await this.#store.stat(digest)) !== undefined;
    });
  }

  delete(digest: Digest): Promise<boolean> {
    return this.#remove(digest, {type: 'blob.unlinked', digest});
  }

  evict(digest: Digest): Promise<boolean> {
    return this.#remove(digest, {type: 'blob.unneeded', digest});
  }

  endDeletion(digest: Digest): Promise<boolean> {
    return this.#mutex.run(digest, async () => {
      const marked = await this.#isMarked(digest);
      if (marked) await this.#removeMarked(digest);
      return marked;
    });
  }

  deleteOrphan(digest: Digest): Promise<boolean> {
    return this.#mutex.run(digest, () => this.#removeUnrecorded(digest));
  }

  /** Marks the row first, so that a process that dies in between leaves a row that says what was begun. */
  #remove(digest: Digest, terms: Precondition): Promise<boolean> {
    return this.#mutex.run(digest, async () => {
      const marked =
        (await this.#isMarked(digest)) ||
        (await this.#metadata.commit([{type: 'blob.deleting', digest}], [terms]));
      if (marked) await this.#removeMarked(digest);
      return marked;
    });
  }

  /** What is bad is not served from memory either, as the report says. */
  #report(digest: Digest, problem: BlobProblem, origin: Origin): void {
    this.#memory.forgetBlob(digest);
    this.#damaged.found(digest, problem, origin);
  }

  /** Compares the row with the size of the file. */
  async #look(digest: Digest): Promise<Look> {
    const record = await this.#metadata.blob(digest);
    if (record?.state !== 'ready') return {state: 'absent'};
    const {size} = record;
    const found = await this.#store.stat(digest);
    if (found?.size !== size) return {state: found ? 'damaged' : 'missing'};
    this.#damaged.isThere(digest);
    return {state: 'sound', size};
  }

  async #isMarked(digest: Digest): Promise<boolean> {
    return (await this.#metadata.blob(digest))?.state === 'deleting';
  }

  async #removeMarked(digest: Digest): Promise<void> {
    const size = (await this.#metadata.blob(digest))?.size;
    await this.#store.delete(digest);
    await this.#metadata.commit([{type: 'blob.delete', digest}]);
    this.#damaged.isSettled(digest);
    this.#space.changed(digest, size, undefined);
  }

  #inspect(digest: Digest, pace: ReadingPace): Promise<Inspection> {
    return inspectBlob({store: this.#store, metadata: this.#metadata}, digest, pace);
  }

  async #correctSize(digest: Digest, size: number): Promise<void> {
    const before = (await this.#metadata.blob(digest))?.size;
    await this.#metadata.commit([{type: 'blob.put', digest, size, at: this.#clock.now()}]);
    this.#space.changed(digest, before, size);
  }

  async #originOf(digest: Digest): Promise<Origin> {
    const isCopy = await this.#metadata.commit([], [{type: 'blob.evictable', digest}]);
    return isCopy ? 'upstream' : 'local';
  }

  /** What the disk fails to read now may be readable later: what was pushed here then stays where it is. */
  async #setAside(digest: Digest, state: BlobProblem): Promise<Origin> {
    const origin = await this.#originOf(digest);
    if (origin === 'upstream') await this.#removeCopy(digest);
    else if (state === 'damaged') await this.#store.setAside(digest, origin);
    return origin;
  }

  /**
   * Removes a damaged copy of what an upstream has. When the disk takes no commit, row and bytes stay: the row is right
   * again once the blob is fetched again.
   * @returns `local` when it is no copy, and stays; undefined when the disk took no commit that would tell
   */
  async #removeCopy(digest: Digest): Promise<Origin | undefined> {
    let origin: Origin | undefined;
    try {
      const size = (await this.#metadata.blob(digest))?.size;
      const forgotten = await this.#metadata.commit(
        [{type: 'blob.delete', digest}],
        [{type: 'blob.evictable', digest}],
      );
      origin = forgotten ? 'upstream' : 'local';
      if (!forgotten) return origin;
      this.#space.changed(digest, size, undefined);
      await this.#store.setAside(digest, 'upstream').catch((error: unknown) => {
        if (error instanceof StoreMissing) throw error;
        // A full disk may have no place for the folder.
        return this.#store.delete(digest);
      });
    } catch (error) {
      // Garbage collection removes bytes without a row from a disk that is read-only now.
      if (!(error instanceof DiskFull || isRefusedByDisk(error))) throw error;
    }
    return origin;
  }

  /** Bytes without a row are never found, and would take up space that a full disk needs. */
  async #removeUnrecorded(digest: Digest): Promise<boolean> {
    if (await this.#metadata.blob(digest)) return false;
    await this.#store.delete(digest);
    return true;
  }
}

type Look = Exclude<BlobComparison, {origin: unknown}> | {state: 'missing' | 'damaged'};
