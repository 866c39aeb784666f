import {type Digest, isDigest} from './digest.ts';
import {isRecord} from './json.ts';

/** The image-spec's content descriptor, with the properties that backref reads. */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
  artifactType?: string;
  annotations?: Record<string, string>;
}

/** Reads a descriptor from parsed JSON; undefined when it is not one whose content can be fetched. */
export function readDescriptor(value: unknown): Descriptor | undefined {
  if (!isRecord(value)) return undefined;
  const {mediaType, digest, size, artifactType, annotations} = value;
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined;
  return {
    mediaType: typeof mediaType === 'string' ? mediaType : '',
    digest,
    size,
    ...(typeof artifactType === 'string' && artifactType !== '' ? {artifactType} : {}),
    ...annotationsIn(annotations),
  };
}

/** The annotations whose values are strings (image-spec, Annotation Rules: they MUST be); no property where there are none. */
export function annotationsIn(value: unknown): Pick<Descriptor, 'annotations'> {
  if (!isRecord(value)) return {};
  const texts = Object.entries(value).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  );
  return texts.length > 0 ? {annotations: Object.fromEntries(texts)} : {};
}
