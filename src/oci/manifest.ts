import {type Descriptor, readDescriptor} from './descriptor.ts';
import {isForeignLayer} from './media-type.ts';

/** What backref reads in a manifest. Everything else passes untouched. */
export interface ManifestFacts {
  /** The body's own `mediaType`, when it has one. */
  mediaType?: string;
  /** The manifest that this one refers to (image-spec, property `subject`). */
  subject?: Descriptor;
  /** Config, layers and blobs of an image or artifact, without the foreign ones. */
  blobs: Descriptor[];
  /** Foreign layers: a registry need not have them, but those that were pushed are content like any other. */
  foreign: Descriptor[];
  /** Manifests of an index or list: content below `/manifests/`. */
  manifests: Descriptor[];
}

const descriptors = (value: unknown): Descriptor[] =>
  Array.isArray(value) ? value.map(readDescriptor).filter((descriptor) => descriptor !== undefined) : [];

/** The properties of a manifest that backref reads, with unchecked values. */
export type ManifestFields = Partial<
  Record<
    'mediaType' | 'artifactType' | 'subject' | 'config' | 'layers' | 'blobs' | 'manifests' | 'annotations',
    unknown
  >
>;

/** Parses a manifest's bytes; undefined when they are not a JSON object. */
export function manifestBody(bytes: Uint8Array): ManifestFields | undefined {
  try {
    const body = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
    return typeof body === 'object' && body !== null ? body : undefined;
  } catch {
    return undefined;
  }
}

const LISTS = ['manifests', 'layers', 'blobs'] as const;

/**
 * Do the bytes look like a manifest of some format: a JSON object that has a schema version, names its media type, or
 * lists content? An error or a token in JSON has none of these, and neither has an HTML page or half a body.
 */
export function isManifestShaped(bytes: Uint8Array): boolean {
  const body: (ManifestFields & {schemaVersion?: unknown}) | undefined = manifestBody(bytes);
  if (!body) return false;
  if (typeof body.schemaVersion === 'number') return true;
  if (typeof body.mediaType === 'string' && body.mediaType !== '') return true;
  return LISTS.some((name) => Array.isArray(body[name]));
}

/**
 * Reads a manifest of any media type. Bytes that are not a JSON object are a manifest without facts: unknown formats
 * pass through as they are.
 */
export const readManifest = (bytes: Uint8Array): ManifestFacts => factsOf(manifestBody(bytes));

/** The same for a manifest that is already parsed. */
export function factsOf(body: ManifestFields = {}): ManifestFacts {
  const {mediaType, subject, config, layers, blobs, manifests} = body;
  const subjectDescriptor = readDescriptor(subject);
  const named = [...descriptors([config]), ...descriptors(layers), ...descriptors(blobs)];
  return {
    ...(typeof mediaType === 'string' && mediaType !== '' ? {mediaType} : {}),
    ...(subjectDescriptor ? {subject: subjectDescriptor} : {}),
    blobs: named.filter(({mediaType}) => !isForeignLayer(mediaType)),
    foreign: named.filter(({mediaType}) => isForeignLayer(mediaType)),
    manifests: descriptors(manifests),
  };
}
