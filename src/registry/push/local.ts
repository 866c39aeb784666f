import type {Caller} from '../../caller.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {rangeLength} from '../../oci/range.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {grantIn} from '../access.ts';
import {answering} from '../failure.ts';
import {createFallbackEntries, type FallbackEntriesParts} from '../fallback-tag/follow.ts';
import type {Route} from '../namespace.ts';
import {blobAbsence, type NegativeCache, repositoryAbsence} from '../negative-cache.ts';
import type {LocalPush} from '../registries.ts';
import {type AttachmentsParts, createAttachments} from './attachments.ts';
import {createContents} from './contents.ts';
import {createEnsureLocal, type EnsureLocalParts} from './ensure-local.ts';
import {outOfOrder, storing} from './errors.ts';
import {createLocalManifests, foreign, type LocalManifestsParts} from './local-manifests.ts';
import type {Chunk, Push, UploadState, UploadWish} from './push.ts';
import type {OpenUpload, Uploads} from './uploads.ts';

export interface LocalPushParts
  extends Omit<LocalManifestsParts, 'contents' | 'attachments' | 'entries'>,
    FallbackEntriesParts,
    EnsureLocalParts,
    AttachmentsParts {
  uploads: Uploads;
  negativeCache: NegativeCache;
}

/** dist-spec, Pushing, into this registry itself: hosted, or laid over an upstream that is never written to. */
export function createLocalPush(parts: LocalPushParts): Push {
  const {metadata, uploads, access, negativeCache, clock} = parts;
  const ensureLocal = createEnsureLocal(parts);
  const manifests = createLocalManifests({
    ...parts,
    contents: createContents({ensureLocal, clock}),
    attachments: createAttachments(parts),
    entries: createFallbackEntries(parts),
  });
  const verb = <T>(route: Route, work: () => Promise<T>): Promise<T> => answering(route, () => storing(work));

  function appeared({repository}: Route, digest: Digest): void {
    negativeCache.forget(blobAbsence(repository, digest));
    negativeCache.forget(repositoryAbsence(repository));
  }

  /** The repository to mount from, of the same registry; without a name, any that has the blob. */
  async function sourceOf(route: Route, {digest, from}: NonNullable<UploadWish['mount']>) {
    if (from) return from.registry.name === route.registry.name ? from : undefined;
    const {name: registry} = route.registry;
    const name = await metadata.blobHolder(registry, digest);
    return name && {...route, repository: {registry, name}};
  }

  /** dist-spec, Mounting a blob: whatever comes in between, the client can upload it instead. */
  async function mounted(
    route: Route,
    mount: NonNullable<UploadWish['mount']>,
    caller: Caller,
  ): Promise<boolean> {
    const source = await sourceOf(route, mount);
    const held = source && (await heldIn(source, mount.digest, caller));
    if (!held) return false;
    const {digest} = mount;
    const {repository} = route;
    const done = await metadata.commit(
      [{type: 'blob.link', repository, digest, size: held.size, origin: 'local', at: clock.now()}],
      [{type: 'blob.held', repository: source.repository, digest}],
    );
    if (done) appeared(route, digest);
    return done;
  }

  async function heldIn(source: Route, digest: Digest, caller: Caller) {
    try {
      return await ensureLocal.blob(source, digest, caller);
    } catch (error) {
      if (error instanceof UpstreamFailure) return undefined;
      throw error;
    }
  }

  async function refuseForeign(route: Route, digest: Digest, caller: Caller): Promise<never> {
    if (!route.registry.hosted && grantIn(await access.confirmBlob(route, digest, caller))) {
      throw foreign(route, `blob ${digest} of ${route.asked}`);
    }
    throw new OciError('BLOB_UNKNOWN', {message: `there is no blob ${digest} in ${route.asked}`});
  }

  return {
    begin: (route, {algorithm, mount}, caller) =>
      verb(route, async () => {
        if (mount && (await mounted(route, mount, caller))) return 'mounted';
        const {id} = await uploads.begin(route.repository, {algorithm, upstream: undefined});
        return stateOf(id, 0);
      }),

    state: (route, id) =>
      verb(route, async () => stateOf(id, (await uploads.find(route.repository, id)).offset)),

    append: (route, id, chunk) =>
      verb(route, () =>
        uploads.write(route.repository, id, async (upload) => {
          await pour(chunk, upload);
          await upload.settle();
          return stateOf(id, upload.offset);
        }),
      ),

    finish: (route, id, digest, chunk) =>
      verb(route, async () => {
        const {repository} = route;
        await uploads.write(repository, id, async (upload) => {
          await pour(chunk, upload);
          const actual = await upload.digest(algorithmOf(digest));
          if (actual !== digest) {
            // Nobody can make these bytes right: they need not wait for their time to be over.
            await upload.drop();
            throw wrongDigest(digest, actual, upload.offset);
          }
          const {offset: size} = upload;
          await upload.keep(digest, [
            {type: 'blob.link', repository, digest, size, origin: 'local', at: clock.now()},
          ]);
        });
        appeared(route, digest);
      }),

    cancel: (route, id) => verb(route, async () => void (await uploads.cancel(route.repository, id))),

    putManifest: (route, reference, manifest, caller) =>
      verb(route, () => manifests.put(route, policyOf(route), reference, manifest, caller)),

    deleteManifest: (route, reference, caller) =>
      verb(route, () => manifests.delete(route, reference, caller)),

    deleteBlob: (route, digest, caller) =>
      verb(route, async () => {
        const {repository, registry} = route;
        const link = await metadata.blobLink(repository, digest);
        const isOurs = link && (registry.hosted || link.origin === 'local');
        if (!isOurs) return refuseForeign(route, digest, caller);
        await metadata.commit([{type: 'blob.unlink', repository, digest}]);
      }),
  };
}

const stateOf = (id: UploadState['id'], offset: number): UploadState => ({id, offset, minChunk: undefined});

/** Which way of pushing a registry has is chosen before; another one's requests do not come here. */
function policyOf({registry: {name, push}}: Route): LocalPush {
  if (push.mode === 'local') return push;
  throw new Error(`registry ${name} does not keep what is pushed`);
}

const wrongDigest = (digest: Digest, actual: Digest, size: number): OciError =>
  new OciError('DIGEST_INVALID', {
    message: `the ${size} bytes that were uploaded have the digest ${actual}, not ${digest}: the upload is over; begin another one`,
    detail: {expected: digest, actual, size},
  });

/**
 * Takes a chunk into an upload. Whatever of it arrived before a fault stays: the upload's offset tells how much that
 * is, and a client goes on from there (dist-spec, Pushing a blob in chunks).
 * @throws OciError BLOB_UPLOAD_INVALID with 416 for a chunk that does not begin where the upload ends; SIZE_INVALID
 * for more or fewer bytes than were told; what reading and writing them throw
 */
async function pour(chunk: Chunk, upload: OpenUpload): Promise<void> {
  const told = toldBytes(chunk);
  if (chunk.range && chunk.range.start !== upload.offset) {
    throw outOfOrder(upload.offset, `the chunk begins at byte ${chunk.range.start}`);
  }
  let given = 0;
  for await (const bytes of chunk.bytes) {
    given += bytes.length;
    if (told !== undefined && given > told) throw wrongSize(`the body has more than the ${told} bytes`);
    await upload.take(bytes);
  }
  if (told !== undefined && given < told) throw wrongSize(`the body has ${given} of the ${told} bytes`);
}

/**
 * The bytes that a chunk is to have.
 * @throws OciError SIZE_INVALID when its range and its length disagree
 */
function toldBytes({length, range}: Chunk): number | undefined {
  if (!range) return length;
  const size = rangeLength(range);
  if (length === undefined || length === size) return size;
  throw wrongSize(
    `Content-Length is ${length}, and Content-Range ${range.start}-${range.end} has ${size} bytes`,
  );
}

const wrongSize = (what: string): OciError =>
  new OciError('SIZE_INVALID', {
    message: `${what}${what.startsWith('Content') ? '' : ' that its headers tell'}; ask with GET where the upload stands and go on from there`,
  });
