import type {Caller} from '../../caller.ts';
import type {Algorithm, Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import type {Reference, Tag} from '../../oci/name.ts';
import type {ByteRange} from '../../oci/range.ts';
import type {UploadId} from '../../oci/upload.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {toOciErrors} from '../failure.ts';
import type {Route} from '../namespace.ts';

/** Bytes that a client sends to an upload. */
export interface Chunk {
  /** Bytes, as the client declared; undefined where it did not. */
  readonly length: number | undefined;
  /** The chunk's place in the upload, both ends inclusive, where the client declared it (`Content-Range`). */
  readonly range: ByteRange | undefined;
  /** Can be read once. Throws OciError when the client breaks off, stalls, or sends another length than it declared. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

export interface UploadOptions {
  /** The algorithm of the digest that the upload will be finished with. */
  readonly algorithm: Algorithm | undefined;
  /** A blob that another repository may already have; without `from`, any repository that the caller may pull from. */
  readonly mount: {readonly digest: Digest; readonly from: Route | undefined} | undefined;
  /** Who holds it until it ends: as a limit names a caller. Undefined where it is not limited. */
  readonly holder?: string | undefined;
}

export interface UploadState {
  readonly id: UploadId;
  /** Bytes received so far: the next chunk begins there. */
  readonly offset: number;
  /** The minimum number of bytes of every chunk except the last (dist-spec, OCI-Chunk-Min-Length). */
  readonly minChunk: number | undefined;
}

export interface PushedManifest {
  readonly bytes: Buffer;
  /** From `Content-Type`, without parameters. */
  readonly mediaType: string | undefined;
  /** Further tags for it (dist-spec, `?tag=`). */
  readonly tags: readonly Tag[];
}

/** What the response to a manifest push says. */
export interface ManifestReceipt {
  readonly digest: Digest;
  /** For `OCI-Subject`: the referrers of this digest list the manifest from now on. */
  readonly subject: Digest | undefined;
  /** For `OCI-Tag`: those of the further tags that were set. */
  readonly tags: readonly Tag[];
  /** For `Warning`: what is wrong with the manifest although it was accepted. */
  readonly warning?: string | undefined;
}

/**
 * dist-spec, Pushing, in one push mode. Each refusal is an OciError that says what is wrong and what to do. An
 * UpstreamFailure means that the upstream could not be asked.
 */
export interface Push {
  /** dist-spec, end-4a, end-4b and end-11. */
  begin(route: Route, options: UploadOptions, caller: Caller): Promise<UploadState | 'mounted'>;
  /** end-13. */
  state(route: Route, id: UploadId, caller: Caller): Promise<UploadState>;
  /** end-5. @throws OciError BLOB_UPLOAD_INVALID with 416 for a chunk that does not begin where the upload ends */
  append(route: Route, id: UploadId, chunk: Chunk, caller: Caller): Promise<UploadState>;
  /** end-6, with the last bytes, which may be none. The blob is durable when it resolves. */
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
  /** end-9: deletes a tag, or a manifest with every tag on it. */
  deleteManifest(route: Route, reference: Reference, caller: Caller): Promise<void>;
  /** end-10. */
  deleteBlob(route: Route, digest: Digest, caller: Caller): Promise<void>;
}

export interface PushParts {
  local: Push;
  through: Push;
  store: Pick<BlobStore, 'check'>;
}

/**
 * Takes a push in the mode that the route's registry is configured with. What brings content, or asks for the state of
 * an upload, is refused while the blob store is missing: the spools of uploads are on the same disk. Deletions need only
 * the metadata.
 * @throws OciError UNSUPPORTED where pushes are denied
 */
export function createPush({local, through, store}: PushParts): Push {
  const modeOf = ({registry: {push}}: Route): Push => {
    if (push.mode === 'deny') throw new OciError('UNSUPPORTED');
    return push.mode === 'local' ? local : through;
  };
  const checked = <T>(route: Route, verb: (push: Push) => Promise<T>): Promise<T> =>
    toOciErrors(route, async () => {
      const push = modeOf(route);
      await store.check();
      return verb(push);
    });
  return {
    begin: (route, ...rest) => checked(route, (push) => push.begin(route, ...rest)),
    state: (route, ...rest) => checked(route, (push) => push.state(route, ...rest)),
    append: (route, ...rest) => checked(route, (push) => push.append(route, ...rest)),
    finish: (route, ...rest) => checked(route, (push) => push.finish(route, ...rest)),
    putManifest: (route, ...rest) => checked(route, (push) => push.putManifest(route, ...rest)),
    cancel: async (route, ...rest) => modeOf(route).cancel(route, ...rest),
    deleteManifest: async (route, ...rest) => modeOf(route).deleteManifest(route, ...rest),
    deleteBlob: async (route, ...rest) => modeOf(route).deleteBlob(route, ...rest),
  };
}
