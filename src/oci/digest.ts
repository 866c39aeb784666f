import {createHash, type Hash} from 'node:crypto';
import {OciError} from './errors.ts';

/** `algorithm:encoded`, checked against the image-spec's grammar and the length that the algorithm requires. */
export type Digest = string & {readonly __brand: 'Digest'};

/** The registered algorithms of the image-spec, section "Digests", with the length of their hex form. */
const HEX_LENGTH = {sha256: 64, sha512: 128} as const;
export type Algorithm = keyof typeof HEX_LENGTH;

const isAlgorithm = (name: string): name is Algorithm => Object.hasOwn(HEX_LENGTH, name);
const HEX = /^[a-f0-9]+$/;

/** True for a well-formed digest of a supported algorithm. */
export function isDigest(text: string): text is Digest {
  const colon = text.indexOf(':');
  const algorithm = text.slice(0, colon);
  const encoded = text.slice(colon + 1);
  return isAlgorithm(algorithm) && encoded.length === HEX_LENGTH[algorithm] && HEX.test(encoded);
}

/** The image-spec's grammar of digests of any algorithm, section "Digests". */
const GRAMMAR = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;

/** True for a well-formed digest of an algorithm that is not supported here. */
export const isUnsupportedDigest = (text: string): boolean =>
  GRAMMAR.test(text) && !isAlgorithm(text.slice(0, text.indexOf(':')));

/**
 * Parses a digest as a client or an upstream wrote it.
 * @throws OciError DIGEST_INVALID when it is malformed or of an unsupported algorithm.
 */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new OciError('DIGEST_INVALID', {
    message: `digest "${text.slice(0, 160)}" is not valid: write sha256: and 64, or sha512: and 128, lower-case hex digits`,
  });
}

/**
 * Parses the name of an algorithm as a client wrote it.
 * @throws OciError DIGEST_INVALID for one that is not supported (dist-spec, Pushing Blobs: 400)
 */
export function parseAlgorithm(text: string): Algorithm {
  if (isAlgorithm(text)) return text;
  throw new OciError('DIGEST_INVALID', {
    message: `digest algorithm "${text.slice(0, 40)}" is not supported: write ${Object.keys(HEX_LENGTH).join(' or ')}`,
  });
}

export const algorithmOf = (digest: Digest): Algorithm =>
  digest.startsWith('sha512:') ? 'sha512' : 'sha256';

/** The part after the colon. */
export const encodedOf = (digest: Digest): string => digest.slice(digest.indexOf(':') + 1);

/** The digest of bytes that are all in memory. */
export function digestOf(bytes: Uint8Array, algorithm: Algorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}

/**
 * The length that a registry or a manifest names for content. Some registries name 0 where they do not know it; only one
 * digest of each algorithm has that length.
 * @param size bytes
 * @returns undefined for a length of 0 unless the digest is that of empty content
 */
export const plausibleSize = (digest: Digest, size: number | undefined): number | undefined =>
  size === 0 && digest !== digestOf(Buffer.alloc(0), algorithmOf(digest)) ? undefined : size;

/** The digest of bytes that arrive in chunks. */
export async function digestOfAll(
  chunks: AsyncIterable<Uint8Array>,
  algorithm: Algorithm = 'sha256',
): Promise<Digest> {
  const digester = createDigester(algorithm);
  for await (const chunk of chunks) digester.update(chunk);
  return digester.digest();
}

/** A running digest over a stream of chunks. */
export interface Digester {
  update(chunk: Uint8Array): void;
  /** The digest of the chunks so far; more may follow. */
  soFar(): Digest;
  /** Finishes the digest; call once. */
  digest(): Digest;
}

export function createDigester(algorithm: Algorithm): Digester {
  const hash: Hash = createHash(algorithm);
  return {
    update: (chunk) => void hash.update(chunk),
    soFar: () => `${algorithm}:${hash.copy().digest('hex')}` as Digest,
    digest: () => `${algorithm}:${hash.digest('hex')}` as Digest,
  };
}
