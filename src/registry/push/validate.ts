import {algorithmOf, type Digest, digestOf, isDigest, isUnsupportedDigest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isRecord, jsonFault} from '../../oci/json.ts';
import {factsOf, type ManifestFacts, type ManifestFields, manifestBody} from '../../oci/manifest.ts';
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isForeignLayer,
  isMediaType,
  OCI_ARTIFACT_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../oci/media-type.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {type Edge, edgeOf, isAttachedTag} from '../../oci/referrers.ts';
import {isFallbackIndex} from '../fallback-tag/follow.ts';
import type {Route} from '../namespace.ts';
import type {PushedManifest} from './push.ts';

/** A manifest whose own bytes are valid. */
export interface CheckedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
  readonly facts: ManifestFacts;
  readonly edge: Edge | undefined;
  /** Its format is known, so the content that it refers to must exist. */
  readonly known: boolean;
  /** References by digests of unsupported algorithms, whose content cannot be here; they are not among its facts. */
  readonly unsupported: {readonly blobs: readonly string[]; readonly manifests: readonly string[]};
}

/** The properties by which manifests of one format refer to content. */
interface ManifestFormat {
  /** Each must be a descriptor. */
  readonly single: readonly 'config'[];
  /** Lists of descriptors; each list may be missing. */
  readonly lists: readonly ('layers' | 'blobs' | 'manifests')[];
  /** Properties of other formats, which must be missing. */
  readonly forbidden: readonly ('config' | 'layers' | 'manifests')[];
}

const IMAGE: ManifestFormat = {single: ['config'], lists: ['layers'], forbidden: ['manifests']};
const INDEX: ManifestFormat = {single: [], lists: ['manifests'], forbidden: ['config', 'layers']};
const ARTIFACT: ManifestFormat = {single: [], lists: ['blobs'], forbidden: ['config', 'layers', 'manifests']};

const FORMATS: ReadonlyMap<string, ManifestFormat> = new Map([
  [OCI_MANIFEST, IMAGE],
  [DOCKER_MANIFEST, IMAGE],
  [OCI_INDEX, INDEX],
  [DOCKER_LIST, INDEX],
  [OCI_ARTIFACT_MANIFEST, ARTIFACT],
]);

/**
 * Checks a pushed manifest by its bytes alone (dist-spec, Pushing Manifests; image-spec, Image Manifest and Image Index).
 * Unknown formats pass if they are JSON objects.
 * @throws OciError DIGEST_INVALID when the bytes do not have the digest that the reference names; MANIFEST_INVALID
 */
export function checkManifest(reference: Reference, pushed: PushedManifest): CheckedManifest {
  const {bytes} = pushed;
  const digest = digestOf(bytes, isDigestReference(reference) ? algorithmOf(reference) : 'sha256');
  if (isDigestReference(reference) && digest !== reference) {
    throw new OciError('DIGEST_INVALID', {
      message: `the body's digest is ${digest}, not ${reference}: push exactly the bytes that the digest was computed from`,
      detail: {expected: reference, actual: digest},
    });
  }
  const body = parse(bytes);
  const facts = factsOf(body);
  const mediaType = mediaTypeOf(pushed.mediaType, facts.mediaType);
  const format = FORMATS.get(mediaType);
  if (format) refuseFaults(body, mediaType, format);
  const known = format !== undefined;
  const edge = edgeOf({digest, mediaType, bytes}, body);
  return {digest, mediaType, bytes, facts, edge, known, unsupported: known ? unsupportedIn(body) : NONE};
}

function parse(bytes: Buffer): ManifestFields {
  const text = textOf(bytes);
  const fault = text === undefined ? 'is not UTF-8 text' : jsonFault(text);
  if (fault !== undefined) throw invalid(`the manifest ${fault}`);
  const body = manifestBody(bytes);
  if (body && !Array.isArray(body)) return body;
  throw invalid('the manifest is not a JSON object');
}

function textOf(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf8', {fatal: true, ignoreBOM: true}).decode(bytes);
  } catch {
    return undefined;
  }
}

/** dist-spec, Pushing Manifests: if the manifest has a mediaType, the header must be the same. */
function mediaTypeOf(header: string | undefined, own: string | undefined): string {
  const mediaType = own ?? header;
  if (mediaType === undefined) {
    throw invalid(
      'neither the Content-Type header nor the mediaType property gives the type of the manifest: send one of them',
    );
  }
  if (!isMediaType(mediaType)) throw invalid(`"${mediaType.slice(0, 80)}" is not a media type`);
  if (header !== undefined && header.toLowerCase() !== mediaType.toLowerCase()) {
    throw invalid(
      `the Content-Type header is ${header.slice(0, 255)}, but the manifest's mediaType is ${mediaType}: send the manifest's own`,
    );
  }
  return mediaType;
}

/**
 * A document that is both an image and an index means different content to different clients. Both specifications were
 * amended to forbid it (GHSA-77vh-xpmg-72qh).
 */
function refuseFaults(
  body: ManifestFields & {schemaVersion?: unknown},
  mediaType: string,
  {single, lists, forbidden}: ManifestFormat,
): void {
  const {schemaVersion = 2} = body;
  if (schemaVersion !== 2) throw invalid(`schemaVersion must be 2 in a manifest of type ${mediaType}`);
  const found = forbidden.find((name) => body[name] !== undefined);
  if (found) throw invalid(`a manifest of type ${mediaType} must not have the property ${found}`);
  for (const name of single) refuseFaultyDescriptor(body[name], name);
  for (const name of lists) refuseFaultyList(body[name], name);
  if (body.subject !== undefined && body.subject !== null) refuseFaultyDescriptor(body.subject, 'subject');
}

/** Go writes an empty list as null. */
function refuseFaultyList(list: unknown, name: string): void {
  if (list === undefined || list === null) return;
  if (!Array.isArray(list)) throw invalid(`the property ${name} is not a list of descriptors`);
  for (const [index, item] of list.entries()) refuseFaultyDescriptor(item, `${name}[${index}]`);
}

/** image-spec, Content Descriptors. */
function refuseFaultyDescriptor(value: unknown, name: string): void {
  if (!isRecord(value)) {
    throw invalid(`${name} is not a descriptor: an object with mediaType, digest and size`);
  }
  const {mediaType = '', digest, size} = value;
  // A digest of an unsupported algorithm is allowed where the content need not exist.
  const isSound = typeof digest === 'string' && (isDigest(digest) || isUnsupportedDigest(digest));
  if (!isSound) {
    throw invalid(`${name}.digest is not a digest: ${JSON.stringify(digest)?.slice(0, 160)}`);
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`${name}.size is not a size in bytes: ${JSON.stringify(size)?.slice(0, 40)}`);
  }
  if (typeof mediaType !== 'string') throw invalid(`${name}.mediaType is not a string`);
}

const NONE: CheckedManifest['unsupported'] = {blobs: [], manifests: []};

/** @param body without faults */
const unsupportedIn = ({
  config,
  layers,
  blobs,
  manifests,
}: ManifestFields): CheckedManifest['unsupported'] => ({
  blobs: unsupportedOf([config, layers, blobs].flat()),
  manifests: unsupportedOf([manifests].flat()),
});

const unsupportedOf = (descriptors: readonly unknown[]): string[] =>
  descriptors
    .filter((value) => typeof value === 'object' && value !== null)
    .map(({mediaType = '', digest = ''}: {mediaType?: string; digest?: string}) => ({mediaType, digest}))
    .filter(({mediaType, digest}) => isUnsupportedDigest(digest) && !isForeignLayer(mediaType))
    .map(({digest}) => digest);

const invalid = (message: string): OciError => new OciError('MANIFEST_INVALID', {message});

/**
 * Refuses what would hide an image of the upstream. Unless its settings allow more, an overlay keeps only what refers to
 * an image: manifests with a subject, the fallback tags that list them, and what cosign attaches by its own tags
 * (`sha256-<hex>.sig`), which nobody runs.
 * @throws OciError DENIED
 */
export function refuseShadowing(
  {registry, repository}: Route,
  manifest: CheckedManifest,
  tags: readonly Tag[],
): void {
  if (registry.hosted || registry.push.mode !== 'local' || registry.push.tags === 'allow') return;
  const isAllowed = (tag: Tag) => isAttachedTag(tag) || isFallbackIndex(manifest, [tag]);
  const shadowing = tags.find((tag) => !isAllowed(tag));
  const setting = `registries.${registry.name}.overlay.tags`;
  if (shadowing !== undefined) {
    throw new OciError('DENIED', {
      message: `${repository.name}:${shadowing} belongs to ${registry.upstream.host}: push what refers to an image by digest, without a tag, or set ${setting} to "allow"`,
    });
  }
  if (manifest.facts.subject === undefined && tags.length === 0) {
    throw new OciError('DENIED', {
      message: `${registry.name} keeps only manifests with a subject, and ${manifest.digest} has none: push it to ${registry.upstream.host}, or set ${setting} to "allow"`,
    });
  }
}
