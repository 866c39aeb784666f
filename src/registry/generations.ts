import {randomInt} from 'node:crypto';
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

/** What all answers depend on, and who the callers are that credentials belong to. Each has a slot of its own. */
const SHARED_SLOTS = {configuration: 0, logins: 1} as const;
export type Shared = keyof typeof SHARED_SLOTS;
const FIRST_SLOT = Object.keys(SHARED_SLOTS).length;

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
  /** Nothing is sure any more, as when a disk fails: ends what every answer depends on, as another configuration does. */
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
  readonly slots = new Int32Array(new SharedArrayBuffer((FIRST_SLOT + SLOTS) * Int32Array.BYTES_PER_ELEMENT));
  /** The slots of what is being changed, with the number of commits under way. */
  readonly #changing = new Map<number, number>();
  /** Nobody can choose names that share a slot with those of others. */
  readonly #seed = randomInt(2 ** 32);

  ofRepository(repository: RepositoryKey): Generation {
    return this.#at(this.#slotOf(fullName(repository)));
  }

  ofBlob(digest: Digest): Generation {
    return this.#at(this.#slotOf(digest));
  }

  ofQuota(host: string): Generation {
    return this.#at(this.#slotOf(quotaKey(host)));
  }

  of(what: Shared): Generation {
    return this.#at(SHARED_SLOTS[what]);
  }

  endRepository(repository: RepositoryKey): void {
    this.#end(this.#slotOf(fullName(repository)));
  }

  endBlob(digest: Digest): void {
    this.#end(this.#slotOf(digest));
  }

  endQuota(host: string): void {
    this.#end(this.#slotOf(quotaKey(host)));
  }

  end(what: Shared): void {
    this.#end(SHARED_SLOTS[what]);
  }

  endAll(): void {
    this.end('configuration');
  }

  watch(metadata: Metadata): Metadata {
    return {
      ...metadata,
      commit: async (changes, preconditions) => {
        const changed = new Set(changes.flatMap(keyOf).map((key) => this.#slotOf(key)));
        for (const slot of changed) this.#beginChange(slot);
        try {
          return await metadata.commit(changes, preconditions);
        } finally {
          for (const slot of changed) this.#endChange(slot);
        }
      },
    };
  }

  /** FNV-1a from a random start, folded to the number of slots. */
  #slotOf(key: string): number {
    let hash = this.#seed ^ 0x811c9dc5;
    for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 0x0100_0193);
    return FIRST_SLOT + ((hash ^ (hash >>> 16)) & (SLOTS - 1));
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
