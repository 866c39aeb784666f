import type {Caller} from '../../caller.ts';
import type {Algorithm, Digest} from '../../oci/digest.ts';
import type {Reference, Tag} from '../../oci/name.ts';
import type {ByteRange} from '../../oci/range.ts';
import type {UploadId} from '../../oci/upload.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {answering} from '../failure.ts';
import type {Route} from '../namespace.ts';
import type {Registry} from '../registries.ts';
import {storing} from './errors.ts';

/** Bytes that a client sends to an upload. */
export interface Chunk {
  /** Their number as the client told it; undefined where it did not. */
  readonly length: number | undefined;
  /** Their place, both ends inclusive, where the client told it (`Content-Range`). */
  readonly range: ByteRange | undefined;
  /** Read once. Throws OciError when the client breaks off, stalls, or sends another number of bytes than it told. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

export interface UploadWish {
  /** Of the digest to come. */
  readonly algorithm: Algorithm | undefined;
  /** A blob that another repository may have already; without `from`, any that the caller may pull from. */
  readonly mount: {readonly digest: Digest; readonly from: Route | undefined} | undefined;
}

/** Where an upload stands. */
export interface UploadState {
  readonly id: UploadId;
  /** Bytes that are here: the next chunk begins there. */
  readonly offset: number;
  /** Bytes that a chunk but the last must have at the least (dist-spec, OCI-Chunk-Min-Length). */
  readonly minChunk: number | undefined;
}

export interface PushedManifest {
  readonly bytes: Buffer;
  /** Of `Content-Type`, without parameters. */
  readonly mediaType: string | undefined;
  /** Further tags for it (dist-spec, `?tag=`). */
  readonly tags: readonly Tag[];
}

/** What the client is told of a manifest that was taken. */
export interface ManifestReceipt {
  readonly digest: Digest;
  /** For `OCI-Subject`: the referrers of this digest list it from now on. */
  readonly subject: Digest | undefined;
  /** For `OCI-Tag`: those of the further tags that were set. */
  readonly tags: readonly Tag[];
  /** For `Warning`: what is wrong with it, though it was taken. */
  readonly warning?: string | undefined;
}

/**
 * dist-spec, Pushing, for one way of taking what is pushed. Each refusal is an OciError that names what was wrong and
 * what to do; UpstreamFailure where the upstream was to be asked and could not be.
 */
export interface Push {
  /** dist-spec, end-4a, end-4b and end-11. */
  begin(route: Route, wish: UploadWish, caller: Caller): Promise<UploadState | 'mounted'>;
  /** end-13. */
  state(route: Route, id: UploadId, caller: Caller): Promise<UploadState>;
  /** end-5. @throws OciError BLOB_UPLOAD_INVALID with 416 for a chunk that does not follow what is here */
  append(route: Route, id: UploadId, chunk: Chunk, caller: Caller): Promise<UploadState>;
  /** end-6, with the last bytes, of which there may be none. The blob is durable when it resolves. */
  finish(route: Route, id: UploadId, digest: Digest, chunk: Chunk, caller: Caller): Promise<void>;
  /** end-14. */
  cancel(route: Route, id: UploadId, caller: Caller): Promise<void>;
  /** end-7. Durable when it resolves. */
  putManifest(
    route: Route,
    reference: Reference,
    manifest: PushedManifest,
    caller: Caller,
  ): Promise<ManifestReceipt>;
  /** end-9: a tag, or a manifest with every tag on it. */
  deleteManifest(route: Route, reference: Reference, caller: Caller): Promise<void>;
  /** end-10. */
  deleteBlob(route: Route, digest: Digest, caller: Caller): Promise<void>;
}

/** The ways of taking what is pushed. */
export interface Pushes {
  /** The way that a registry's policy names; undefined where it takes no pushes. */
  of(registry: Registry): Push | undefined;
}

export interface PushesParts {
  local: Push;
  through: Push;
  store: Pick<BlobStore, 'check'>;
}

export const createPushes = ({local, through, store}: PushesParts): Pushes => {
  const ways = {deny: undefined, local: onStore(local, store), through: onStore(through, store)};
  return {of: ({push}) => ways[push.mode]};
};

/**
 * The same pushes while the blob store is there. What brings content, or asks where an upload stands, is refused while it
 * is missing: the spools of uploads lie on the same disk.
 */
function onStore(push: Push, store: PushesParts['store']): Push {
  const present = <T>(route: Route, verb: () => Promise<T>): Promise<T> =>
    answering(route, async () => {
      await storing(() => store.check());
      return verb();
    });
  return {
    ...push,
    begin: (route, ...rest) => present(route, () => push.begin(route, ...rest)),
    state: (route, ...rest) => present(route, () => push.state(route, ...rest)),
    append: (route, ...rest) => present(route, () => push.append(route, ...rest)),
    finish: (route, ...rest) => present(route, () => push.finish(route, ...rest)),
    putManifest: (route, ...rest) => present(route, () => push.putManifest(route, ...rest)),
  };
}
