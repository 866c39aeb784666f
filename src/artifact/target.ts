import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import type {Reference} from '../oci/name.ts';

/** A manifest as a target holds it. */
export interface TargetManifest {
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
}

/** One repository that artifacts can be attached in: of a registry, an image layout, a store. */
export interface ArtifactTarget {
  /** As a person knows it, for messages. */
  readonly name: string;
  /**
   * The manifest as it is now, from no cache, its bytes checked against its digest.
   * @returns undefined when it is certain that there is none.
   */
  manifest(reference: Reference): Promise<TargetManifest | undefined>;
  /**
   * What the target itself lists for a subject, in its order.
   * @returns undefined when it is certain that it lists no referrers: what there are stand under the fallback tag.
   */
  referrers(subject: Digest): Promise<Descriptor[] | undefined>;
  /** Does nothing for a blob that is there. */
  pushBlob(blob: BlobSource): Promise<void>;
  putManifest(reference: Reference, manifest: {mediaType: string; bytes: Buffer}): Promise<void>;
  /** Frees files and connections. */
  close(): Promise<void>;
}

/** What cannot be attached or listed, and what to do about it. */
export class ArtifactError extends Error {
  override readonly name = 'ArtifactError';
}
