import picomatch from 'picomatch';
import {type Digest, isDigest} from './digest.ts';
import type {Reference, RepositoryName, Tag} from './name.ts';

/** A pattern for repositories, written `registry/repository`. */
export interface RepositoryGlob {
  /** @param registry its name in the configuration */
  matches(registry: string, repository: string): boolean;
}

/** A pattern for images, written `registry/repository`, `registry/repository:tag` or `registry/repository@digest`. */
export interface ImageGlob {
  /** @param references the image's digest and its tags; a pattern without a tag and digest matches any of them */
  matches(registry: string, repository: string, references: readonly Reference[]): boolean;
}

/** A pattern for the repositories of one registry. */
export interface NameGlob {
  matches(repository: RepositoryName): boolean;
}

/** A pattern for the tags of one registry, written `tag` or `repository:tag`. */
export interface TagGlob {
  matches(repository: RepositoryName, tag: Tag): boolean;
}

/** A pattern for places, written `registry/repository` or `registry/repository:tag`; `**` is every place. */
export interface PlaceGlob {
  /** Whether it is about some tags of its repositories alone. */
  readonly hasTag: boolean;
  /** Whether it may match a repository of this registry. */
  matchesRegistry(registry: string): boolean;
  /** @param registry its name in the configuration */
  matchesRepository(registry: string, repository: string): boolean;
  /** True for every tag where the pattern names none. */
  matchesTag(tag: string): boolean;
}

/** What names of registries and repositories, and tags, are made of, and what a pattern adds to it. */
const ALLOWED = /^[\w.:/*?[\]{},^!-]+$/;
/** Longer patterns could not match: names are at most 255 characters long, tags 128. */
const MAX_LENGTH = 1024;

/** Of a registry's name, a slash and a repository's. */
const MAX_TEXT_LENGTH = 512;

/** A tag has no slash; a port is followed by one. */
const IMAGE = /^(?<repository>.+?)(?:@(?<digest>[^@]*)|:(?<tag>[^:/]*))?$/;

/**
 * Parses a pattern for repositories. `*` matches within one path component, `**` any number of components, `?` one
 * character; `[a-z]` and `{one,two}` mean what they do in a shell.
 * @returns undefined for anything else
 */
export function parseRepositoryGlob(text: string): RepositoryGlob | undefined {
  const {tag, digest} = IMAGE.exec(text)?.groups ?? {};
  if (tag !== undefined || digest !== undefined || !text.includes('/')) return undefined;
  const isMatch = compile(text);
  return isMatch && {matches: (registry, repository) => isMatch(`${registry}/${repository}`)};
}

/**
 * Parses a pattern for images, as `parseRepositoryGlob` does, with an optional pattern for the tag, or a digest.
 * @returns undefined for anything else
 */
export function parseImageGlob(text: string): ImageGlob | undefined {
  const {repository = '', tag, digest} = IMAGE.exec(text)?.groups ?? {};
  const image = parseRepositoryGlob(repository);
  const isReference = image && parseReferenceGlob(tag, digest);
  if (!isReference) return undefined;
  return {
    matches: (registry, name, references) => image.matches(registry, name) && isReference(references),
  };
}

/**
 * Parses a pattern for repositories of one registry, without the registry: `library/*`, `team/**`.
 * @returns undefined for anything else
 */
export function parseNameGlob(text: string): NameGlob | undefined {
  const isMatch = text.includes(':') ? undefined : compile(text);
  return isMatch && {matches: isMatch};
}

/**
 * Parses a pattern for tags, in any repository or in those that match: `v[0-9]*`, `library/alpine:3.*`.
 * @returns undefined for anything else
 */
export function parseTagGlob(text: string): TagGlob | undefined {
  const [tag = '', repository, ...more] = text.split(':').reverse();
  const isTag = tag.includes('/') ? undefined : compile(tag);
  const isRepository = compile(repository ?? '**');
  if (!isTag || !isRepository || more.length > 0) return undefined;
  return {matches: (name, reference) => isTag(reference) && isRepository(name)};
}

/**
 * Parses a pattern for places, as `parseRepositoryGlob` does, with an optional pattern for the tag.
 * @returns undefined for anything else
 */
export function parsePlaceGlob(text: string): PlaceGlob | undefined {
  const {repository = '', tag, digest} = IMAGE.exec(text)?.groups ?? {};
  const place = text === EVERY_PLACE ? EVERY_REPOSITORY : parseRepositoryGlob(repository);
  const isTag = tag === undefined ? () => true : compile(tag);
  if (!place || !isTag || digest !== undefined) return undefined;
  const [first = ''] = repository.split('/');
  // Of `{a.test/x,b.test/y}` the first component is not a pattern.
  const isRegistry = (first.includes('{') ? undefined : compile(first)) ?? (() => true);
  return {
    hasTag: tag !== undefined,
    matchesRegistry: isRegistry,
    matchesRepository: place.matches,
    matchesTag: isTag,
  };
}

const EVERY_PLACE = '**';
const EVERY_REPOSITORY: RepositoryGlob = {matches: () => true};

type MatchReferences = (references: readonly Reference[]) => boolean;

function parseReferenceGlob(
  tag: string | undefined,
  digest: string | undefined,
): MatchReferences | undefined {
  if (digest !== undefined)
    return isDigest(digest) ? (references) => references.includes(digest as Digest) : undefined;
  if (tag === undefined) return () => true;
  const isMatch = compile(tag);
  return (
    isMatch && ((references) => references.some((reference) => !isDigest(reference) && isMatch(reference)))
  );
}

function compile(glob: string): ((text: string) => boolean) | undefined {
  const opened = glob.split('{').length;
  if (glob.length > MAX_LENGTH || !ALLOWED.test(glob) || opened !== glob.split('}').length) return undefined;
  try {
    const isMatch = picomatch(glob, {strictBrackets: true, nonegate: true, noextglob: true, dot: true});
    // Matching a pattern with several `*` takes time that grows fast with the length of a text.
    return (text) => text.length <= MAX_TEXT_LENGTH && isMatch(text);
  } catch {
    return undefined; // A bracket is not closed.
  }
}
