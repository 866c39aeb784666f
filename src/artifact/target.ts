import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {algorithmOf, createDigester, type Digest} from '../oci/digest.ts';
import type {Reference} from '../oci/name.ts';

/** A manifest as a target has it. */
export interface TargetManifest {
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
}

/** One repository that artifacts can be attached in: of a registry, an image layout, or a store. */
export interface ArtifactTarget {
  /** What messages call it. */
  readonly name: string;
  /**
   * The manifest as it is now, bypassing caches, its bytes compared with its digest.
   * @returns undefined when it is certain that it does not exist
   */
  manifest(reference: Reference): Promise<TargetManifest | undefined>;
  /**
   * What the target itself lists for a subject, in its order.
   * @returns undefined when it is certain that it does not list referrers: then they are under the fallback tag
   */
  referrers(subject: Digest): Promise<Descriptor[] | undefined>;
  /** Does nothing for a blob that the target has. */
  pushBlob(blob: BlobSource): Promise<void>;
  putManifest(reference: Reference, manifest: {mediaType: string; bytes: Buffer}): Promise<void>;
  /** Frees files and connections. */
  close(): Promise<void>;
}

/** Something cannot be attached or listed. The message says what to do about it. */
export class ArtifactError extends Error {
  override readonly name = 'ArtifactError';
}

/** The chunks of a blob. @throws ArtifactError at their end, when they do not have the digest of the blob */
export async function* verifiedChunks({digest, open}: BlobSource): AsyncGenerator<Uint8Array> {
  const digester = createDigester(algorithmOf(digest));
  for await (const chunk of open()) {
    digester.update(chunk);
    yield chunk;
  }
  const actual = digester.digest();
  if (actual !== digest) {
    throw new ArtifactError(`The bytes of a blob have the digest ${actual} instead of ${digest}.`);
  }
}
