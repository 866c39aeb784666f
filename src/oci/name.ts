import {type Digest, isDigest, parseDigest} from './digest.ts';
import {OciError} from './errors.ts';

/** A repository name that satisfies the distribution-spec's grammar, section "Pulling Manifests". */
export type RepositoryName = string & {readonly __brand: 'RepositoryName'};
/** A tag that satisfies the same section's grammar. */
export type Tag = string & {readonly __brand: 'Tag'};
export type Reference = Tag | Digest;

const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
/** Clients limit host and name together to 255 characters (the spec's implementers' note). */
const MAX_NAME_LENGTH = 255;

export const isRepositoryName = (text: string): text is RepositoryName =>
  text.length <= MAX_NAME_LENGTH && NAME.test(text);

/**
 * Parses the text between `/v2/` and `/manifests/`, `/blobs/` or `/tags/`, percent-decoded.
 * @throws OciError NAME_INVALID
 */
export function parseName(text: string): RepositoryName {
  if (isRepositoryName(text)) return text;
  throw new OciError('NAME_INVALID', {
    message: `repository name "${text.slice(0, 80)}" is not valid: write at most ${MAX_NAME_LENGTH} characters, path components of a-z and 0-9 joined by ".", "_", "__" or "-"`,
  });
}

export const isTag = (text: string): text is Tag => TAG.test(text);

const TAG_RULE = 'a tag of at most 128 letters, digits, "_", "." and "-" that does not begin with "." or "-"';

/** @throws OciError MANIFEST_INVALID; a malformed tag has no code of its own in the specification. */
export function parseTag(text: string): Tag {
  if (isTag(text)) return text;
  throw new OciError('MANIFEST_INVALID', {
    message: `tag "${text.slice(0, 80)}" is not valid: write ${TAG_RULE}`,
  });
}

/**
 * Parses a tag or a digest. Text with a colon can only be meant as a digest.
 * @throws OciError DIGEST_INVALID or MANIFEST_INVALID; a malformed tag has no code of its own in the specification.
 */
export function parseReference(text: string): Reference {
  if (text.includes(':')) return parseDigest(text);
  if (isTag(text)) return text;
  throw new OciError('MANIFEST_INVALID', {
    message: `reference "${text.slice(0, 80)}" is not valid: write a digest, or ${TAG_RULE}`,
  });
}

export const isDigestReference = (reference: Reference): reference is Digest => isDigest(reference);
