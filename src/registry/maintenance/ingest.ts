import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest, digestOf, digestOfAll} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import {isDigestReference, type Reference} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import type {UploadId} from '../../oci/upload.ts';
import type {Change, Metadata, Precondition, RepositoryKey} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import type {Memory} from '../memory.ts';
import {manifestPut} from '../stored-manifest.ts';
import type {Tags} from '../tags/tags.ts';

/** A manifest with its blobs, for one repository of the store. */
export interface IngestRequest {
  repository: RepositoryKey;
  /** The manifest's digest, or a tag for it. */
  reference: Reference;
  mediaType: string;
  bytes: Buffer;
  /** Blobs whose complete content is in spools. Spools that are not taken stay. */
  blobs: readonly {digest: Digest; spool: UploadId}[];
}

export interface Ingest {
  /**
   * Stores content on behalf of the store's owner, whatever the registry's push mode is. The content is local, so it is
   * never evicted. The blobs are stored first, then the manifest in one commit with its edge and its tag. What was stored
   * before a failure stays; storing the same content again, from new spools, is harmless.
   * @throws OciError DIGEST_INVALID when content does not have its digest; MANIFEST_BLOB_UNKNOWN when a blob was deleted
   * meanwhile
   */
  run(request: IngestRequest): Promise<void>;
}

export interface IngestParts {
  metadata: Metadata;
  spools: Spools;
  lifecycle: BlobLifecycle;
  tags: Pick<Tags, 'write'>;
  memory: Pick<Memory, 'keepManifest'>;
  clock: Clock;
}

export function createIngest({metadata, spools, lifecycle, tags, memory, clock}: IngestParts): Ingest {
  async function takeBlob(repository: RepositoryKey, digest: Digest, id: UploadId): Promise<void> {
    const spool = await spools.open(id);
    try {
      const actual = await digestOfAll(spool.read(0, spool.size), algorithmOf(digest));
      if (actual !== digest) throw wrongDigest('blob', digest, actual);
      const {size} = spool;
      await lifecycle.publish(digest, spool, [
        {type: 'blob.link', repository, digest, size, origin: 'local', at: clock.now()},
      ]);
    } finally {
      await spool.close();
    }
  }

  async function takeManifest({
    repository,
    reference,
    mediaType,
    bytes,
    blobs,
  }: IngestRequest): Promise<void> {
    const tag = isDigestReference(reference) ? undefined : reference;
    const digest = digestOf(bytes, isDigestReference(reference) ? algorithmOf(reference) : undefined);
    if (tag === undefined && digest !== reference) throw wrongDigest('manifest', reference, digest);
    const edge = edgeOf({digest, mediaType, bytes});
    const facts = readManifest(bytes);
    const origin = 'local' as const;
    const at = clock.now();
    const put = manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at});
    const changes: Change[] = tag
      ? [put, {type: 'tag.put', repository, name: tag, digest, origin, at}]
      : [put];
    const held = blobs.map((blob): Precondition => ({type: 'blob.held', repository, digest: blob.digest}));
    await tags.write({repository}, [digest, ...(tag ? [tag] : [])], async () => {
      if (!(await metadata.commit(changes, held))) throw collected(digest);
    });
    memory.keepManifest(repository, {digest, mediaType, bytes, origin, linkedAt: at});
  }

  return {
    async run(request) {
      for (const {digest, spool} of request.blobs) await takeBlob(request.repository, digest, spool);
      await takeManifest(request);
    },
  };
}

const collected = (digest: Digest): OciError =>
  new OciError('MANIFEST_BLOB_UNKNOWN', {
    message: `a blob of ${digest} was collected before the manifest was put: put them again, and raise garbage.grace`,
  });

const wrongDigest = (kind: string, claimed: string, actual: Digest): OciError =>
  new OciError('DIGEST_INVALID', {
    message: `a ${kind} said to be ${claimed} has bytes whose digest is ${actual}`,
  });
