import {annotationsIn, type Descriptor} from './descriptor.ts';
import {type Digest, isDigest} from './digest.ts';
import {type ManifestFields, manifestBody} from './manifest.ts';
import {DOCKER_LIST, OCI_INDEX} from './media-type.ts';
import {isTag, type Tag} from './name.ts';

/** That a manifest refers to another: what the Referrers API lists for `subject`. */
export interface Edge {
  subject: Digest;
  /** Of the manifest that refers. */
  descriptor: Descriptor;
}

/** An entry that is left out of a list of referrers, which is then incomplete. */
export interface SkippedReferrer {
  /** As the upstream wrote it: not necessarily a digest. */
  digest: string;
  /** What is wrong with it, as the end of a sentence that begins with the digest. */
  reason: string;
}

export const UNSUPPORTED_DIGEST = 'has a digest algorithm that is not supported';

/** The descriptors with each digest once: the first of several wins. */
export const distinctReferrers = (descriptors: readonly Descriptor[]): Descriptor[] => {
  const first = new Map<Digest, Descriptor>();
  for (const descriptor of descriptors) {
    if (!first.has(descriptor.digest)) first.set(descriptor.digest, descriptor);
  }
  return [...first.values()];
};

/** A manifest as a repository holds it: its bytes under the link's media type. */
export interface EdgeSource {
  digest: Digest;
  mediaType: string;
  bytes: Uint8Array;
}

/**
 * The edge that a manifest makes, whatever its media type, its descriptor built from the manifest's bytes alone
 * (dist-spec, Listing Referrers): `artifactType`, of an image also its config's media type; all annotations; never
 * `data`. An empty artifact type counts as missing. Docker's formats and OCI's artifact manifests are no exception:
 * clients that see the Referrers API write no fallback tag for them.
 * @param parsed the parsed manifest, where the caller has it.
 * @returns undefined for a manifest without a subject that can be asked for.
 */
export function edgeOf({digest, mediaType, bytes}: EdgeSource, parsed?: ManifestFields): Edge | undefined {
  const body = parsed ?? manifestBody(bytes);
  const subject = subjectOf(body?.subject);
  if (!body || !subject) return undefined;
  const isIndex = mediaType === OCI_INDEX || mediaType === DOCKER_LIST;
  const artifactType = textOf(body.artifactType) ?? (isIndex ? undefined : configType(body.config));
  return {
    subject,
    descriptor: {
      mediaType,
      digest,
      size: bytes.byteLength,
      ...(artifactType === undefined ? {} : {artifactType}),
      ...annotationsIn(body.annotations),
    },
  };
}

/** Reads only a subject's digest: the other properties of its descriptor may be missing. */
function subjectOf(value: unknown): Digest | undefined {
  if (typeof value !== 'object' || value === null || !('digest' in value)) return undefined;
  return typeof value.digest === 'string' && isDigest(value.digest) ? value.digest : undefined;
}

const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : undefined;

const configType = (config: unknown): string | undefined =>
  typeof config === 'object' && config !== null && 'mediaType' in config
    ? textOf(config.mediaType)
    : undefined;

const NOT_IN_A_TAG = /[^a-zA-Z0-9._-]/g;

/**
 * The tag under which clients keep the referrers of a subject where a registry has no Referrers API (dist-spec,
 * Referrers Tag Schema).
 * @param subject any digest of the image-spec's grammar, also of an algorithm that backref does not support.
 */
export function fallbackTag(subject: string): Tag {
  const colon = subject.indexOf(':');
  const [algorithm, encoded] = [subject.slice(0, colon), subject.slice(colon + 1)];
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`.replace(NOT_IN_A_TAG, '-') as Tag;
}

const FALLBACK_TAG = /^(sha256|sha512)-([a-f0-9]{64})$/;

/**
 * The beginning of the digests whose fallback tag this is: a whole sha256 digest, or half of a sha512 digest.
 * @returns undefined for any other tag.
 */
export function subjectPrefix(tag: Tag): string | undefined {
  const [, algorithm, encoded] = FALLBACK_TAG.exec(tag) ?? [];
  return algorithm && encoded ? `${algorithm}:${encoded}` : undefined;
}

const TAG_OF_SUBJECT = /^(sha256|sha512)-([a-f0-9]{64})(?:\.(?:sig|att|sbom))?$/;

/**
 * The beginning of the digest of the manifest that a tag is attached to: as a fallback tag, or as one that cosign writes
 * (`.sig`, `.att`, `.sbom`). A whole sha256 digest, or half of a sha512 digest.
 * @returns undefined for any other tag
 */
export function attachedTo(tag: Tag): string | undefined {
  const [, algorithm, encoded] = TAG_OF_SUBJECT.exec(tag) ?? [];
  return algorithm && encoded ? `${algorithm}:${encoded}` : undefined;
}

const ATTACHED_TAG = /^sha(256|512)-[a-f0-9]{64,}\.[a-z]+$/;

/**
 * Is it the tag of something that cosign attached without a subject: `sha256-<hex>.sig`, `.att` or `.sbom`? It looks like
 * an image, but its configuration is not read and nobody runs it.
 */
export const isAttachedTag = (tag: Tag): boolean => ATTACHED_TAG.test(tag);

const ATTACHED_SUFFIXES = ['.sig', '.att', '.sbom'];

/** The tags under which cosign attaches signatures, attestations and SBOMs to a manifest; none where they would be too long. */
export const attachedTags = (subject: Digest): Tag[] =>
  ATTACHED_SUFFIXES.map((suffix) => `${subject.replace(':', '-')}${suffix}`).filter(isTag);

/**
 * Is it BuildKit's entry of an index for the attestations of a platform, that is, for provenance or an SBOM? Nobody runs
 * it. It names its platform in an annotation, and since BuildKit 0.32 by `subject` as well.
 */
export const isAttestation = ({annotations}: Descriptor): boolean =>
  annotations?.['vnd.docker.reference.type'] === 'attestation-manifest';

const INDEX_END = ']}';
const COMMA = ',';

/** An image index without descriptors. */
export const EMPTY_INDEX: Buffer = Buffer.from(
  `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${INDEX_END}`,
);

/**
 * Appends descriptors to an index. Equal lists give equal bytes, however many steps and pieces they were built in.
 * @param index `EMPTY_INDEX`, or a result of this function.
 * @param pieces each the JSON of one descriptor, or of several with commas between them.
 */
export function extendIndex(index: Buffer, pieces: readonly Uint8Array[]): Buffer {
  const further = pieces.filter((piece) => piece.length > 0);
  const capacity = further.reduce((sum, piece) => sum + piece.length + COMMA.length, index.length);
  // Written in place: lists have megabytes, and each copy of one would cost as much as all of this. Not in Node's pool:
  // a small index would keep all of the pool in memory.
  const extended = Buffer.allocUnsafeSlow(capacity);
  let at = index.copy(extended, 0, 0, index.length - INDEX_END.length);
  for (const piece of further) {
    if (at > EMPTY_INDEX.length - INDEX_END.length) at += extended.write(COMMA, at);
    extended.set(piece, at);
    at += piece.length;
  }
  at += extended.write(INDEX_END, at);
  return extended.subarray(0, at);
}
