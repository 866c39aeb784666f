import {type Digest, isDigest} from './digest.ts';

/** The image-spec's content descriptor, with the properties that backref reads. */
export interface Descriptor {
  mediaType: string;
  digest: Digest;
  /** Bytes. */
  size: number;
  artifactType?: string;
  annotations?: Record<string, string>;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads what may be a descriptor out of parsed JSON; undefined when it is none that we could follow. */
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
    ...(isRecord(annotations) ? {annotations: annotations as Record<string, string>} : {}),
  };
}
