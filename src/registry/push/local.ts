import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import type {Reference} from '../../oci/name.ts';
import {rangeLength} from '../../oci/range.ts';
import type {UploadId} from '../../oci/upload.ts';
import type {Change, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Access} from '../access.ts';
import {toOciErrors} from '../failure.ts';
import {createFallbackEntries, type FallbackEntriesParts} from '../fallback-tag/follow.ts';
import type {Route} from '../namespace.ts';
import {blobAbsence, type NegativeCache, repositoryAbsence} from '../negative-cache.ts';
import {grantIn} from '../place-access.ts';
import type {LocalPushPolicy} from '../registries.ts';
import {type AttachmentsParts, createAttachments} from './attachments.ts';
import {withinLimit} from './content-limits.ts';
import {createContents} from './contents.ts';
import {createEnsureLocal, type EnsureLocal, type EnsureLocalParts} from './ensure-local.ts';
import {outOfOrder} from './errors.ts';
import {
  belongsToUpstream,
  createLocalManifests,
  type LocalManifests,
  type LocalManifestsParts,
} from './local-manifests.ts';
import type {OpenUpload} from './open-upload.ts';
import type {Chunk, ManifestReceipt, Push, PushedManifest, UploadOptions, UploadState} from './push.ts';
import {createRepositoryBytes, type RepositoryBytes} from './repository-bytes.ts';
import type {Uploads} from './uploads.ts';

export interface LocalPushParts
  extends Omit<LocalManifestsParts, 'contents' | 'repositoryBytes' | 'attachments' | 'entries'>,
    FallbackEntriesParts,
    EnsureLocalParts,
    AttachmentsParts {
  uploads: Uploads;
  negativeCache: NegativeCache;
}

type Mount = NonNullable<UploadOptions['mount']>;

/** Mode `push: local`: content is kept in this registry, which is hosted, or an overlay on an upstream that is never written to. */
export const createLocalPush = (parts: LocalPushParts): Push => new LocalPushVerbs(parts);

class LocalPushVerbs implements Push {
  readonly #metadata: Metadata;
  readonly #uploads: Uploads;
  readonly #access: Access;
  readonly #negativeCache: NegativeCache;
  readonly #clock: Clock;
  readonly #ensureLocal: EnsureLocal;
  readonly #repositoryBytes: RepositoryBytes;
  readonly #manifests: LocalManifests;

  constructor(parts: LocalPushParts) {
    this.#metadata = parts.metadata;
    this.#uploads = parts.uploads;
    this.#access = parts.access;
    this.#negativeCache = parts.negativeCache;
    this.#clock = parts.clock;
    this.#ensureLocal = createEnsureLocal(parts);
    this.#repositoryBytes = createRepositoryBytes(parts.metadata);
    this.#manifests = createLocalManifests({
      ...parts,
      repositoryBytes: this.#repositoryBytes,
      contents: createContents({ensureLocal: this.#ensureLocal, clock: parts.clock}),
      attachments: createAttachments(parts),
      entries: createFallbackEntries(parts),
    });
  }

  begin(
    route: Route,
    {algorithm, mount, holder}: UploadOptions,
    caller: Caller,
  ): Promise<UploadState | 'mounted'> {
    return toOciErrors(route, async () => {
      if (mount && (await this.#mount(route, mount, caller))) return 'mounted';
      await this.#repositoryBytes.refuseWhenFull(route);
      const {id} = await this.#uploads.begin(route.repository, {algorithm, upstream: undefined, holder});
      return stateOf(id, 0);
    });
  }

  state(route: Route, id: UploadId): Promise<UploadState> {
    return toOciErrors(route, async () =>
      stateOf(id, (await this.#uploads.find(route.repository, id)).offset),
    );
  }

  append(route: Route, id: UploadId, chunk: Chunk): Promise<UploadState> {
    return toOciErrors(route, () =>
      this.#uploads.write(route.repository, id, async (upload) => {
        await unlessTooMuch(upload, () => appendChunk(upload, withinLimit(route, chunk, upload.offset)));
        await upload.close();
        return stateOf(id, upload.offset);
      }),
    );
  }

  finish(route: Route, id: UploadId, digest: Digest, chunk: Chunk): Promise<void> {
    return toOciErrors(route, async () => {
      const {repository} = route;
      await this.#uploads.write(repository, id, async (upload) => {
        await unlessTooMuch(upload, () => appendChunk(upload, withinLimit(route, chunk, upload.offset)));
        const actual = await upload.digest(algorithmOf(digest));
        if (actual !== digest) {
          // Nothing can make these bytes right, so the upload need not wait to expire.
          await upload.discard();
          throw wrongDigest(digest, actual, upload.offset);
        }
        const {offset: size} = upload;
        const link: Change = {
          type: 'blob.link',
          repository,
          digest,
          size,
          origin: 'local',
          at: this.#clock.now(),
        };
        await unlessTooMuch(upload, () =>
          this.#repositoryBytes.adding(route, [{digest, size}], () => upload.publish(digest, [link])),
        );
      });
      this.#forgetAbsence(route, digest);
    });
  }

  cancel(route: Route, id: UploadId): Promise<void> {
    return toOciErrors(route, async () => void (await this.#uploads.cancel(route.repository, id)));
  }

  putManifest(
    route: Route,
    reference: Reference,
    manifest: PushedManifest,
    caller: Caller,
  ): Promise<ManifestReceipt> {
    return toOciErrors(route, () => this.#manifests.put(route, policyOf(route), reference, manifest, caller));
  }

  deleteManifest(route: Route, reference: Reference, caller: Caller): Promise<void> {
    return toOciErrors(route, () => this.#manifests.delete(route, reference, caller));
  }

  deleteBlob(route: Route, digest: Digest, caller: Caller): Promise<void> {
    return toOciErrors(route, async () => {
      const {repository, registry} = route;
      const link = await this.#metadata.blobLink(repository, digest);
      const isOurs = link && (registry.hosted || link.origin === 'local');
      if (!isOurs) return this.#refuseDeletion(route, digest, caller);
      await this.#metadata.commit([{type: 'blob.unlink', repository, digest}]);
    });
  }

  /** dist-spec, Mounting a blob. @returns false when it cannot be mounted: the client uploads it instead */
  async #mount(route: Route, mount: Mount, caller: Caller): Promise<boolean> {
    const source = await this.#access.mountSource(route, mount, caller);
    const held = source && (await this.#heldIn(source, mount.digest, caller));
    if (!held) return false;
    const {digest} = mount;
    const {repository} = route;
    const {size} = held;
    const done = await this.#repositoryBytes.adding(route, [{digest, size}], () =>
      this.#metadata.commit(
        [{type: 'blob.link', repository, digest, size, origin: 'local', at: this.#clock.now()}],
        [{type: 'blob.held', repository: source.repository, digest}],
      ),
    );
    if (done) this.#forgetAbsence(route, digest);
    return done;
  }

  async #heldIn(source: Route, digest: Digest, caller: Caller): ReturnType<EnsureLocal['blob']> {
    try {
      return await this.#ensureLocal.blob(source, digest, caller);
    } catch (error) {
      if (error instanceof UpstreamFailure) return undefined;
      throw error;
    }
  }

  /** @throws OciError UNSUPPORTED for a blob of the upstream, BLOB_UNKNOWN for one that does not exist */
  async #refuseDeletion(route: Route, digest: Digest, caller: Caller): Promise<never> {
    if (!route.registry.hosted && grantIn(await this.#access.confirmBlob(route, digest, caller))) {
      throw belongsToUpstream(route, `blob ${digest} of ${route.asked}`);
    }
    throw new OciError('BLOB_UNKNOWN', {message: `there is no blob ${digest} in ${route.asked}`});
  }

  #forgetAbsence({repository}: Route, digest: Digest): void {
    this.#negativeCache.forget(blobAbsence(repository, digest));
    this.#negativeCache.forget(repositoryAbsence(repository));
  }
}

const stateOf = (id: UploadId, offset: number): UploadState => ({id, offset, minChunk: undefined});

/** @throws Error for a registry of another push mode: a fault of ours, as the mode is chosen before */
function policyOf({registry: {name, push}}: Route): LocalPushPolicy {
  if (push.mode === 'local') return push;
  throw new Error(`registry ${name} does not keep what is pushed`);
}

const wrongDigest = (digest: Digest, actual: Digest, size: number): OciError =>
  new OciError('DIGEST_INVALID', {
    message: `the ${size} uploaded bytes have the digest ${actual}, not ${digest}: this upload has ended; begin a new one`,
    detail: {expected: digest, actual, size},
  });

/**
 * An upload that exceeds a limit is ended: nothing can be done with it, and it need not wait to expire. One whose client
 * was only too slow (408) can be continued.
 */
async function unlessTooMuch(upload: OpenUpload, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const isTooMuch = error instanceof OciError && error.limit !== undefined && error.status !== 408;
    if (isTooMuch) await upload.discard();
    throw error;
  }
}

/**
 * Appends a chunk to an upload. The bytes that arrived before a failure stay: the upload's offset counts them, and the
 * client continues from there (dist-spec, Pushing a blob in chunks).
 * @throws OciError BLOB_UPLOAD_INVALID with 416 for a chunk that does not begin where the upload ends; SIZE_INVALID
 * for more or fewer bytes than declared; what reading and writing them throw
 */
async function appendChunk(upload: OpenUpload, chunk: Chunk): Promise<void> {
  const declared = declaredLength(chunk);
  if (chunk.range && chunk.range.start !== upload.offset) {
    throw outOfOrder(upload.offset, chunk.range.start);
  }
  if (declared !== undefined) await upload.reserve(declared);
  let received = 0;
  for await (const bytes of chunk.bytes) {
    received += bytes.length;
    if (declared !== undefined && received > declared) {
      throw wrongSize(`the body is longer than the ${declared} bytes that its headers declare`);
    }
    await upload.append(bytes);
  }
  if (declared !== undefined && received < declared) {
    throw wrongSize(`the body has ${received} of the ${declared} bytes that its headers declare`);
  }
}

/** @throws OciError SIZE_INVALID when the chunk's range and its length disagree */
function declaredLength({length, range}: Chunk): number | undefined {
  if (!range) return length;
  const size = rangeLength(range);
  if (length === undefined || length === size) return size;
  throw wrongSize(
    `Content-Length is ${length}, but Content-Range ${range.start}-${range.end} has ${size} bytes`,
  );
}

const wrongSize = (what: string): OciError =>
  new OciError('SIZE_INVALID', {
    message: `${what}; send GET to the upload's location to see where it stands, and continue from there`,
  });
