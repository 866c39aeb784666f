import {LRUCache} from 'lru-cache';
import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {Digest} from '../oci/digest.ts';
import type {Reference} from '../oci/name.ts';
import {fullName, fullReference, type RepositoryKey} from '../storage/metadata.ts';

/**
 * What the upstream recently said does not exist, to whom. Entries live seconds: longer ones would refuse images that
 * were just pushed. What does not exist for one caller may exist for another.
 */
export interface NegativeCache {
  remember(absence: string, caller: Caller): void;
  /** True when this caller learned of the absence less than `ttl` milliseconds ago. */
  has(absence: string, caller: Caller, ttl: number): boolean;
  /** It exists now: forgets the absence for every caller. */
  forget(absence: string): void;
}

/** Absences, each counted once for each caller. */
const MAX_ENTRIES = 10_000;

/** The absence of a repository's tag or manifest. */
export const manifestAbsence = (repository: RepositoryKey, reference: Reference): string =>
  `manifest ${fullReference(repository, reference)}`;

export const blobAbsence = (repository: RepositoryKey, digest: Digest): string =>
  `blob ${fullReference(repository, digest)}`;

/** The absence of the whole repository, as the request for its tags shows it. */
export const repositoryAbsence = (repository: RepositoryKey): string => `repository ${fullName(repository)}`;

export function createNegativeCache(clock: Clock): NegativeCache {
  /** When each caller learned of an absence, by the caller's key. */
  const absences = new LRUCache<string, ReadonlyMap<string, number>>({
    maxSize: MAX_ENTRIES,
    sizeCalculation: (callers) => callers.size,
  });
  return {
    remember(absence, caller) {
      absences.set(absence, new Map(absences.get(absence)).set(caller.key, clock.monotonic()));
    },
    has(absence, caller, ttl) {
      const at = absences.get(absence)?.get(caller.key) ?? Number.NEGATIVE_INFINITY;
      return clock.monotonic() - at < ttl;
    },
    forget: (absence) => void absences.delete(absence),
  };
}
