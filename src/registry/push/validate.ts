import {algorithmOf, type Digest, digestOf, isDigest, isUnsupportedDigest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {jsonFault} from '../../oci/json.ts';
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
import {type Edge, edgeOf, isAttachedTag, subjectPrefix} from '../../oci/referrers.ts';
import type {Route} from '../namespace.ts';
import type {PushedManifest} from './push.ts';

/** A manifest that may be kept as it is, as far as its own bytes tell. */
export interface CheckedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
  readonly facts: ManifestFacts;
  readonly edge: Edge | undefined;
  /** Its format is known: what it names must exist. Of others nothing is asked. */
  readonly known: boolean;
  /** What it names by digests of algorithms that are not supported, and which cannot be here; not among its facts. */
  readonly strangers: {readonly blobs: readonly string[]; readonly manifests: readonly string[]};
}

/** The properties by which manifests of one format name content. */
interface Format {
  /** Each must be a descriptor. */
  readonly single: readonly 'config'[];
  /** Lists of descriptors, each of which may be missing. */
  readonly lists: readonly ('layers' | 'blobs' | 'manifests')[];
  /** Properties of other formats. */
  readonly alien: readonly ('config' | 'layers' | 'manifests')[];
}

const IMAGE: Format = {single: ['config'], lists: ['layers'], alien: ['manifests']};
const INDEX: Format = {single: [], lists: ['manifests'], alien: ['config', 'layers']};
const ARTIFACT: Format = {single: [], lists: ['blobs'], alien: ['config', 'layers', 'manifests']};

const FORMATS: ReadonlyMap<string, Format> = new Map([
  [OCI_MANIFEST, IMAGE],
  [DOCKER_MANIFEST, IMAGE],
  [OCI_INDEX, INDEX],
  [DOCKER_LIST, INDEX],
  [OCI_ARTIFACT_MANIFEST, ARTIFACT],
]);

/**
 * Checks a manifest that a client pushes by its bytes alone (dist-spec, Pushing Manifests; image-spec, Image Manifest
 * and Image Index). Formats that are not known pass, as long as they are JSON objects.
 * @throws OciError DIGEST_INVALID when the bytes are not what the reference names; MANIFEST_INVALID
 */
export function checkManifest(reference: Reference, pushed: PushedManifest): CheckedManifest {
  const {bytes} = pushed;
  const digest = digestOf(bytes, isDigestReference(reference) ? algorithmOf(reference) : 'sha256');
  if (isDigestReference(reference) && digest !== reference) {
    throw new OciError('DIGEST_INVALID', {
      message: `the body's digest is ${digest}, not ${reference}: push the very bytes that the digest was made of`,
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
  return {digest, mediaType, bytes, facts, edge, known, strangers: known ? strangersIn(body) : NOBODY};
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

/** dist-spec, Pushing Manifests: where the manifest names its type, the header must be that type. */
function mediaTypeOf(header: string | undefined, own: string | undefined): string {
  const mediaType = own ?? header;
  if (mediaType === undefined) {
    throw invalid(
      'neither the Content-Type header nor the property mediaType says what the manifest is; send one',
    );
  }
  if (!isMediaType(mediaType)) throw invalid(`"${mediaType.slice(0, 80)}" is not a media type`);
  if (header !== undefined && header.toLowerCase() !== mediaType.toLowerCase()) {
    throw invalid(
      `the Content-Type header says ${header.slice(0, 255)} and the manifest calls itself ${mediaType}; send the manifest's own`,
    );
  }
  return mediaType;
}

/**
 * A document that reads as an image and as an index means different content to different readers: both specifications
 * were amended for that (GHSA-77vh-xpmg-72qh).
 */
function refuseFaults(
  body: ManifestFields & {schemaVersion?: unknown},
  mediaType: string,
  {single, lists, alien}: Format,
): void {
  const {schemaVersion = 2} = body;
  if (schemaVersion !== 2) throw invalid(`schemaVersion must be 2 in a manifest of type ${mediaType}`);
  const found = alien.find((name) => body[name] !== undefined);
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
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${name} is not a descriptor, an object with mediaType, digest and size`);
  }
  const {mediaType = '', digest, size}: {mediaType?: unknown; digest?: unknown; size?: unknown} = value;
  // Content of an algorithm that is not supported may be named where what is named need not exist.
  const isSound = typeof digest === 'string' && (isDigest(digest) || isUnsupportedDigest(digest));
  if (!isSound) {
    throw invalid(`${name}.digest is not a digest: ${JSON.stringify(digest)?.slice(0, 160)}`);
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`${name}.size is not a number of bytes: ${JSON.stringify(size)?.slice(0, 40)}`);
  }
  if (typeof mediaType !== 'string') throw invalid(`${name}.mediaType is not a text`);
}

const NOBODY: CheckedManifest['strangers'] = {blobs: [], manifests: []};

/** Of a body without faults. */
const strangersIn = ({config, layers, blobs, manifests}: ManifestFields): CheckedManifest['strangers'] => ({
  blobs: strangersOf([config, layers, blobs].flat()),
  manifests: strangersOf([manifests].flat()),
});

const strangersOf = (descriptors: readonly unknown[]): string[] =>
  descriptors
    .filter((value) => typeof value === 'object' && value !== null)
    .map(({mediaType = '', digest = ''}: {mediaType?: string; digest?: string}) => ({mediaType, digest}))
    .filter(({mediaType, digest}) => isUnsupportedDigest(digest) && !isForeignLayer(mediaType))
    .map(({digest}) => digest);

const invalid = (message: string): OciError => new OciError('MANIFEST_INVALID', {message});

/** Is it the list of referrers that clients keep where they know of no Referrers API? */
export const isFallbackIndex = (
  {mediaType}: Pick<CheckedManifest, 'mediaType'>,
  tags: readonly Tag[],
): boolean => mediaType === OCI_INDEX && tags.some((tag) => subjectPrefix(tag) !== undefined);

/**
 * Refuses what would take the place of an upstream's image: over an upstream, unless the registry allows more, only
 * what refers to an image is kept here. That is a manifest with a subject, the fallback tag that lists such, and what
 * cosign attaches by a tag of its own (`sha256-<hex>.sig`), which nobody runs.
 * @throws OciError DENIED
 */
export function refuseShadowing(
  {registry, repository}: Route,
  manifest: CheckedManifest,
  tags: readonly Tag[],
): void {
  if (registry.hosted || registry.push.mode !== 'local' || registry.push.tags === 'allow') return;
  const isHarmless = (tag: Tag) => isAttachedTag(tag) || isFallbackIndex(manifest, [tag]);
  const shadowing = tags.find((tag) => !isHarmless(tag));
  const setting = `registries.${registry.name}.overlay.tags`;
  if (shadowing !== undefined) {
    throw new OciError('DENIED', {
      message: `${repository.name}:${shadowing} belongs to ${registry.upstream.host}, over which ${registry.name} is laid: push what refers to an image by its digest, without a tag, or have ${setting} set to "allow"`,
    });
  }
  if (manifest.facts.subject === undefined && tags.length === 0) {
    throw new OciError('DENIED', {
      message: `over ${registry.upstream.host} only manifests with a subject are kept here, and ${manifest.digest} has none: push it to ${registry.upstream.host} itself, or have ${setting} set to "allow"`,
    });
  }
}
