import {LRUCache} from 'lru-cache';
import type {Clock} from '../clock.ts';
import type {Digest} from '../oci/digest.ts';
import {isDigestReference, type Reference} from '../oci/name.ts';
import type {RepositoryKey} from '../storage/metadata.ts';

/** What the upstream recently said does not exist. Entries live seconds: longer ones would refuse images that were just pushed. */
export interface NegativeCache {
  remember(key: string): void;
  /** True when the absence was learned less than `ttl` milliseconds ago. */
  has(key: string, ttl: number): boolean;
  forget(key: string): void;
}

const MOST = 10_000;

/** Names the absence of a repository's tag or manifest. */
export const manifestAbsence = ({registry, name}: RepositoryKey, reference: Reference): string =>
  `${registry}/${name}${isDigestReference(reference) ? '@' : ':'}${reference}`;

export const blobAbsence = ({registry, name}: RepositoryKey, digest: Digest): string =>
  `${registry}/${name}/${digest}`;

/** Of the repository as a whole, as its list of tags tells. */
export const repositoryAbsence = ({registry, name}: RepositoryKey): string => `${registry}/${name} tags`;

export function createNegativeCache(clock: Clock): NegativeCache {
  const seen = new LRUCache<string, number>({max: MOST});
  return {
    remember: (key) => void seen.set(key, clock.monotonic()),
    has: (key, ttl) => clock.monotonic() - (seen.get(key) ?? Number.NEGATIVE_INFINITY) < ttl,
    forget: (key) => void seen.delete(key),
  };
}
