import {createLru} from '../lru.ts';
import type {Digest} from '../oci/digest.ts';
import {type Change, fullName, type Metadata, type RepositoryKey} from '../storage/metadata.ts';

/** The time in which nothing changes that answers about one repository, or about the bytes of one blob, depend on. */
export interface Generation {
  readonly isOver: boolean;
}

/**
 * Tells whether something has changed since an answer was made. An answer takes the generations that it depends on before
 * it reads anything, and may be given again until one of them is over.
 */
export interface Generations {
  /** The present one of a repository. It is over from the start while the repository is being changed. */
  ofRepository(repository: RepositoryKey): Generation;
  /** The same for the bytes of a blob, whatever repository they are read through. */
  ofBlob(digest: Digest): Generation;
  /** Something has changed that is remembered outside of the metadata. */
  endRepository(repository: RepositoryKey): void;
  endBlob(digest: Digest): void;
  /** Nothing is sure any more, as when a disk fails. */
  endAll(): void;
  /** The metadata, each commit of which ends the generations of what it changes, from when it is asked for. */
  watch(metadata: Metadata): Metadata;
}

/** Repositories and blobs whose answers may be given again. The generations of further ones end. */
const MAX_CURRENT = 50_000;

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
  // Who a credential belongs to is looked at each time.
  'robot.put': 'neither',
  'robot.delete': 'neither',
  'robot.use': 'neither',
  'cache-age.put': 'neither',
};

export const createGenerations = (): Generations => new CurrentGenerations();

const OVER: Generation = Object.freeze({isOver: true});

class CurrentGenerations implements Generations {
  /** By the repository's full name, or the blob's digest, which has no slash. */
  readonly #current = createLru<string, {isOver: boolean}>(MAX_CURRENT, {
    dispose(generation) {
      generation.isOver = true;
    },
  });
  /** What is being changed, with the number of commits under way. */
  readonly #changing = new Map<string, number>();

  ofRepository(repository: RepositoryKey): Generation {
    return this.#of(fullName(repository));
  }

  ofBlob(digest: Digest): Generation {
    return this.#of(digest);
  }

  endRepository(repository: RepositoryKey): void {
    this.#current.delete(fullName(repository));
  }

  endBlob(digest: Digest): void {
    this.#current.delete(digest);
  }

  endAll(): void {
    this.#current.clear();
  }

  watch(metadata: Metadata): Metadata {
    return {
      ...metadata,
      commit: async (changes, preconditions) => {
        const keys = new Set(changes.flatMap(keyOf));
        for (const key of keys) this.#begin(key);
        try {
          return await metadata.commit(changes, preconditions);
        } finally {
          for (const key of keys) this.#end(key);
        }
      },
    };
  }

  #of(key: string): Generation {
    if (this.#changing.has(key)) return OVER;
    const current = this.#current.get(key);
    if (current) return current;
    const next = {isOver: false};
    this.#current.set(key, next);
    return next;
  }

  /** Reads may see a commit before its promise resolves, so it counts from when it is asked for until it has ended. */
  #begin(key: string): void {
    this.#changing.set(key, (this.#changing.get(key) ?? 0) + 1);
    this.#current.delete(key);
  }

  #end(key: string): void {
    const left = (this.#changing.get(key) ?? 0) - 1;
    if (left > 0) this.#changing.set(key, left);
    else this.#changing.delete(key);
  }
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
