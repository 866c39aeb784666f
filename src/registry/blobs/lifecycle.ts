import type {Clock} from '../../clock.ts';
import {errorCode, isRefusedByDisk} from '../../error-code.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest, digestOfAll} from '../../oci/digest.ts';
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
import type {Space} from '../space.ts';

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
   * of them, and fetched again. Row and bytes of a blob that was pushed here stay as they are: a push of the blob repairs
   * it, and so does restoring a backup.
   * @throws StoreMissing when the whole store is missing, so that nothing is known of any blob
   */
  stored(digest: Digest): Promise<number | undefined>;
  /**
   * Hashes the stored bytes of a blob. What is bad is set aside: the row of a copy is removed, so that it is fetched
   * again; a blob that was pushed here is missing until it is pushed again. A row that names a wrong size is corrected.
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
  /** Removes the bytes of a blob that has no row, as a process that died may have left them. @returns whether it did */
  deleteOrphan(digest: Digest): Promise<boolean>;
}

/** `missing`: a row without bytes. `damaged`: bytes that do not have the digest. `unreadable`: the disk fails to read them. */
export type BlobProblem = 'missing' | 'damaged' | 'unreadable';

export type BlobCheck =
  /** `size` in bytes; `isRecorded` is false when the row named another size. */
  | {state: 'sound'; size: number; isRecorded: boolean}
  /** Not stored, or being deleted. */
  | {state: 'absent'}
  /** `local` when any repository's link to it is. */
  | {state: BlobProblem; origin: Origin};

export interface CheckOptions {
  /** Changes nothing. */
  dryRun?: boolean;
  /** Awaited after each chunk that was read; slows the reading down, or throws to end it. */
  pace?(bytes: number): Promise<void>;
}

export interface BlobLifecycleParts {
  store: BlobStore;
  metadata: Metadata;
  /** Is told what is stored and deleted. */
  space: Pick<Space, 'changed'>;
  clock: Clock;
}

export const createBlobLifecycle = (parts: BlobLifecycleParts): BlobLifecycle => new StoredBlobs(parts);

class StoredBlobs implements BlobLifecycle {
  readonly #store: BlobStore;
  readonly #metadata: Metadata;
  readonly #space: BlobLifecycleParts['space'];
  readonly #clock: Clock;
  readonly #mutex: KeyedMutex = createKeyedMutex();

  constructor({store, metadata, space, clock}: BlobLifecycleParts) {
    this.#store = store;
    this.#metadata = metadata;
    this.#space = space;
    this.#clock = clock;
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
      this.#space.changed(digest, before, put.size);
    });
  }

  async stored(digest: Digest): Promise<number | undefined> {
    const found = await this.#look(digest);
    if (found === 'absent') return undefined;
    if (found !== 'lost') return found.size;
    // Looked at again under the mutex: the blob may have been deleted or stored again meanwhile.
    return this.#mutex.run(digest, async () => {
      const now = await this.#look(digest);
      if (typeof now === 'object') return now.size;
      if (now === 'lost') await this.#removeCopy(digest);
      return undefined;
    });
  }

  async check(digest: Digest, {dryRun = false, pace = noPace}: CheckOptions = {}): Promise<BlobCheck> {
    // Reading takes long. A push of the blob does not wait for it.
    const first = await this.#inspect(digest, pace);
    if (first.state === 'sound' && first.isRecorded) return first;
    return this.#mutex.run(digest, async () => {
      const found = await this.#inspect(digest, noPace);
      const {state} = found;
      if (state === 'absent') return {state};
      if (state !== 'sound') {
        return {state, origin: dryRun ? await this.#originOf(digest) : await this.#setAside(digest, state)};
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

  /** Compares the row with what the disk has. */
  async #look(digest: Digest): Promise<'absent' | 'lost' | {size: number}> {
    const record = await this.#metadata.blob(digest);
    if (record?.state !== 'ready') return 'absent';
    const {size} = record;
    return (await this.#store.stat(digest))?.size === size ? {size} : 'lost';
  }

  async #isMarked(digest: Digest): Promise<boolean> {
    return (await this.#metadata.blob(digest))?.state === 'deleting';
  }

  async #removeMarked(digest: Digest): Promise<void> {
    const size = (await this.#metadata.blob(digest))?.size;
    await this.#store.delete(digest);
    await this.#metadata.commit([{type: 'blob.delete', digest}]);
    this.#space.changed(digest, size, undefined);
  }

  async #inspect(digest: Digest, pace: Pace): Promise<Inspection> {
    const record = await this.#metadata.blob(digest);
    if (record?.state !== 'ready') return {state: 'absent'};
    const found = await this.#store.stat(digest);
    if (!found) return {state: 'missing'};
    try {
      const actual = await digestOfAll(paced(this.#store.open(digest), pace), algorithmOf(digest));
      if (actual !== digest) return {state: 'damaged'};
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return {state: 'missing'};
      if (UNREADABLE.has(errorCode(error))) return {state: 'unreadable'};
      throw error;
    }
    return {state: 'sound', size: found.size, isRecorded: found.size === record.size};
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
   */
  async #removeCopy(digest: Digest): Promise<void> {
    try {
      const size = (await this.#metadata.blob(digest))?.size;
      const forgotten = await this.#metadata.commit(
        [{type: 'blob.delete', digest}],
        [{type: 'blob.evictable', digest}],
      );
      if (!forgotten) return;
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
  }

  /** Bytes without a row are never found, and would take up space that a full disk needs. */
  async #removeUnrecorded(digest: Digest): Promise<boolean> {
    if (await this.#metadata.blob(digest)) return false;
    await this.#store.delete(digest);
    return true;
  }
}

type Pace = NonNullable<CheckOptions['pace']>;

type Inspection = Exclude<BlobCheck, {origin: Origin}> | {state: BlobProblem};

/** How file systems report bytes that the disk fails to read, or that do not match their checksum. */
const UNREADABLE: ReadonlySet<unknown> = new Set(['EIO', 'EBADMSG', 'EUCLEAN']);

const noPace: Pace = async () => {};

async function* paced(chunks: AsyncIterable<Uint8Array>, pace: Pace): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    yield chunk;
    await pace(chunk.length);
  }
}

/** Emits the event of a blob that was found bad. */
export function reportCheck(events: Events, digest: Digest, check: BlobCheck): void {
  if (check.state === 'sound' || check.state === 'absent') return;
  events.emit('blob.damaged', {digest, origin: check.origin, problem: check.state});
}
