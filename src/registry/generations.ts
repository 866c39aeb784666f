import type {Digest} from '../oci/digest.ts';
import {type Change, fullName, type Metadata, type RepositoryKey} from '../storage/metadata.ts';

/**
 * The time in which nothing changes that answers about one repository, or about the bytes of one blob, depend on: it is
 * over once its slot of the shared memory has another value. Plain data, which another thread can compare.
 */
export interface Generation {
  readonly slot: number;
  readonly value: number;
}

/** What all answers depend on: the configuration, and who the callers are that credentials belong to. */
export type Shared = 'configuration' | 'logins';

/**
 * Tells whether something has changed since an answer was made. An answer takes the generations that it depends on before
 * it reads anything, and may be given again until one of them is over.
 */
export interface Generations {
  /** The values of all slots, for `areCurrent` in any thread. */
  readonly slots: Int32Array<SharedArrayBuffer>;
  /** The present one of a repository. It is over from the start while the repository is being changed. */
  ofRepository(repository: RepositoryKey): Generation;
  /** The same for the bytes of a blob, whatever repository they are read through. */
  ofBlob(digest: Digest): Generation;
  /** That of what an upstream last reported of its rate limit. */
  ofQuota(host: string): Generation;
  of(what: Shared): Generation;
  /** Something has changed that is remembered outside of the metadata. */
  endRepository(repository: RepositoryKey): void;
  endBlob(digest: Digest): void;
  endQuota(host: string): void;
  end(what: Shared): void;
  /** Nothing is sure any more, as when a disk fails. */
  endAll(): void;
  /** The metadata, each commit of which ends the generations of what it changes, from when it is asked for. */
  watch(metadata: Metadata): Metadata;
}

/** Whether nothing has changed since these were taken. @param slots those of `Generations` */
export function areCurrent(slots: Int32Array, generations: readonly Generation[]): boolean {
  for (const {slot, value} of generations) if (Atomics.load(slots, slot) !== value) return false;
  return true;
}

/** What shares a slot ends together, which only makes an answer that could be given again be made anew. A power of two. */
const SLOTS = 65_536;

/** Values wrap around here, so that none is negative. */
const MAX_VALUE = 0x7fff_ffff;

/** What a change of the metadata is about, as far as answers that are given again depend on it. */
type Subject = 'repository' | 'blob' | 'neither';

const SUBJECTS: Readonly<Record<Change['type'], Subject>> = {
  'manifest.put': 'repository',
  'manifest.link': 'repository',
  'manifest.unlink': 'repository',
  'manifest.delete': 'repository',
  'manifest.evict': 'repository',
  // Of what no repository is linked to, nothing is answered.
  'manifest.collect': 'neither',
  'manifest.used': 'neither',
  'referrer-list.put': 'repository',
  'referrer.put': 'repository',
  'referrer.delete': 'repository',
  'tag.put': 'repository',
  'tag.gone': 'repository',
  'tag.delete': 'repository',
  // Lists of tags are not given again.
  'tag-list.put': 'neither',
  'tag-list.delete': 'neither',
  'blob.put': 'blob',
  'blob.delete': 'blob',
  'blob.deleting': 'blob',
  'blob.link': 'repository',
  'blob.unlink': 'repository',
  'blob.forget': 'repository',
  'blob-store.put': 'neither',
  'upload.put': 'neither',
  'upload.delete': 'neither',
  'tag-journal.put': 'neither',
  'tag-journal.written': 'neither',
  'tag-journal.delete': 'neither',
  'lease.put': 'neither',
  'lease.delete': 'neither',
  'pin.put': 'neither',
  'pin.delete': 'neither',
  'pull.put': 'neither',
  'pull.forget': 'neither',
  // `Robots` ends the generation of logins itself: it withdraws a secret before that is committed.
  'robot.put': 'neither',
  'robot.delete': 'neither',
  'robot.use': 'neither',
  'cache-age.put': 'neither',
};

export const createGenerations = (): Generations => new SharedGenerations();

/** Of what is being changed. No slot has this value. */
const OVER = -1;

class SharedGenerations implements Generations {
  readonly slots = new Int32Array(new SharedArrayBuffer(SLOTS * Int32Array.BYTES_PER_ELEMENT));
  /** The slots of what is being changed, with the number of commits under way. */
  readonly #changing = new Map<number, number>();

  ofRepository(repository: RepositoryKey): Generation {
    return this.#at(slotOf(fullName(repository)));
  }

  ofBlob(digest: Digest): Generation {
    return this.#at(slotOf(digest));
  }

  ofQuota(host: string): Generation {
    return this.#at(slotOf(quotaKey(host)));
  }

  of(what: Shared): Generation {
    return this.#at(slotOf(what));
  }

  endRepository(repository: RepositoryKey): void {
    this.#end(slotOf(fullName(repository)));
  }

  endBlob(digest: Digest): void {
    this.#end(slotOf(digest));
  }

  endQuota(host: string): void {
    this.#end(slotOf(quotaKey(host)));
  }

  end(what: Shared): void {
    this.#end(slotOf(what));
  }

  endAll(): void {
    for (let slot = 0; slot < SLOTS; slot += 1) this.#end(slot);
  }

  watch(metadata: Metadata): Metadata {
    return {
      ...metadata,
      commit: async (changes, preconditions) => {
        const changed = new Set(changes.flatMap(keyOf).map(slotOf));
        for (const slot of changed) this.#beginChange(slot);
        try {
          return await metadata.commit(changes, preconditions);
        } finally {
          for (const slot of changed) this.#endChange(slot);
        }
      },
    };
  }

  #at(slot: number): Generation {
    return {slot, value: this.#changing.has(slot) ? OVER : Atomics.load(this.slots, slot)};
  }

  /** Only the thread that owns the generations ends them. */
  #end(slot: number): void {
    Atomics.store(this.slots, slot, (Atomics.load(this.slots, slot) + 1) & MAX_VALUE);
  }

  /** Reads may see a commit before its promise resolves, so it counts from when it is asked for until it has ended. */
  #beginChange(slot: number): void {
    this.#changing.set(slot, (this.#changing.get(slot) ?? 0) + 1);
    this.#end(slot);
  }

  #endChange(slot: number): void {
    const left = (this.#changing.get(slot) ?? 0) - 1;
    if (left > 0) this.#changing.set(slot, left);
    else this.#changing.delete(slot);
  }
}

/** Unlike the full name of a repository, it has no slash; unlike a digest, it has a space. */
const quotaKey = (host: string): string => `quota ${host}`;

/** FNV-1a, folded to the number of slots. */
function slotOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x0100_0193);
  return (hash ^ (hash >>> 16)) & (SLOTS - 1);
}

function keyOf(change: Change): string[] {
  switch (SUBJECTS[change.type]) {
    case 'repository':
      return 'repository' in change ? [fullName(change.repository)] : [];
    case 'blob':
      return 'digest' in change ? [change.digest] : [];
    case 'neither':
      return [];
  }
}
