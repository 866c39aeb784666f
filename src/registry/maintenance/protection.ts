import {
  type ImageGlob,
  parseImageGlob,
  parseRepositoryGlob,
  type RepositoryGlob,
} from '../../oci/image-glob.ts';
import type {Reference} from '../../oci/name.ts';
import type {Pin, RepositoryKey} from '../../storage/metadata.ts';
import type {Protection} from './inventory.ts';

/** What the configuration keeps from being evicted, as patterns of oci/image-glob.ts. */
export interface ProtectionSettings {
  pins: readonly string[];
  /** How many images of each matching repository stay: those that were linked last. */
  keep: readonly {match: string; newest: number}[];
}

/** @returns what gives the protection by the configuration together with the pins that are stored */
export function createProtection({pins, keep}: ProtectionSettings): (stored: readonly Pin[]) => Protection {
  const globs = pins.map(imageGlob);
  const kept = keep.map(({match, newest}) => ({glob: repositoryGlob(match), newest}));
  return (stored) => {
    const pinned = new Set(stored.map(({registry, name, reference}) => keyOf({registry, name}, reference)));
    return {
      isPinned: (repository, references) =>
        references.some((reference) => pinned.has(keyOf(repository, reference))) ||
        globs.some((glob) => glob.matches(repository.registry, repository.name, references)),
      newestKept: ({registry, name}) =>
        kept.reduce(
          (most, {glob, newest}) => (glob.matches(registry, name) ? Math.max(most, newest) : most),
          0,
        ),
    };
  };
}

const keyOf = ({registry, name}: RepositoryKey, reference: Reference): string =>
  `${registry}/${name} ${reference}`;

/** The configuration has checked the patterns. @throws Error for one that is not valid */
function imageGlob(text: string): ImageGlob {
  const glob = parseImageGlob(text);
  if (!glob) throw new Error(`"${text}" is not a pattern for images`);
  return glob;
}

/** As `imageGlob`. */
function repositoryGlob(text: string): RepositoryGlob {
  const glob = parseRepositoryGlob(text);
  if (!glob) throw new Error(`"${text}" is not a pattern for repositories`);
  return glob;
}
