import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {systemClock} from '../../../src/clock.ts';
import {createEvents} from '../../../src/events.ts';
import {type Digest, digestOf, encodedOf} from '../../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {parseName, parseReference} from '../../../src/oci/name.ts';
import {createUploadId} from '../../../src/oci/upload.ts';
import {createDamagedBlobs} from '../../../src/registry/blobs/damaged.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createIngest, type IngestParts} from '../../../src/registry/maintenance/ingest.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {UNLIMITED} from '../../../src/registry/space.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {imageManifest} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';

const repository = {registry: 'r.test', name: parseName('team/app')};
const {digest, bytes} = imageManifest();
const data = Buffer.from('data');
const manifest = {repository, mediaType: OCI_MANIFEST, bytes};
const commitAtOnce: IngestParts['tags'] = {write: (_place, _references, commit) => commit()};

async function setUp(
  t: ExecutionContext,
  tags: (parts: Pick<IngestParts, 'metadata'>) => IngestParts['tags'],
) {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const spools = createSpools({path: join(folder, 'spool')});
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata});
  const memory = createMemory(0);
  const damaged = createDamagedBlobs(createEvents());
  const lifecycle = createBlobLifecycle({
    store,
    metadata,
    space: UNLIMITED,
    memory,
    damaged,
    clock: systemClock,
  });
  const stage = async (content: Buffer) => {
    const spool = await spools.open(createUploadId());
    await spool.append(content);
    await spool.close();
    return spool.key as ReturnType<typeof createUploadId>;
  };
  const parts = {
    metadata,
    spools,
    lifecycle,
    memory,
    clock: systemClock,
    tags: tags({metadata}),
  };
  return {folder, metadata, store, stage, lifecycle, ingest: createIngest(parts)};
}

test('ingested content has its tag and its blobs, and can be ingested again from other spools', async (t) => {
  const {ingest, stage, metadata, lifecycle} = await setUp(t, () => commitAtOnce);
  const reference = parseReference('1');
  for (let time = 0; time < 2; time++) {
    await ingest.run({
      ...manifest,
      reference,
      blobs: [{digest: digestOf(data), spool: await stage(data)}],
    });
  }
  t.like(await metadata.manifest(repository, digest as Digest), {origin: 'local', mediaType: OCI_MANIFEST});
  t.like(await metadata.blobLink(repository, digestOf(data)), {origin: 'local', size: 4});
  t.is(await lifecycle.stored(digestOf(data)), 4);
});

test('ingesting repairs a stored blob that the disk has damaged', async (t) => {
  const {ingest, stage, store, folder} = await setUp(t, () => commitAtOnce);
  const dataDigest = digestOf(data);
  const ingestOnce = async () => {
    const blobs = [{digest: dataDigest, spool: await stage(data)}];
    await ingest.run({...manifest, reference: digest as Digest, blobs});
  };
  await ingestOnce();
  const encoded = encodedOf(dataDigest);
  await writeFile(join(folder, 'blobs', 'sha256', encoded.slice(0, 2), encoded), 'dAta');
  await ingestOnce();
  const stored = await Array.fromAsync(store.open(dataDigest), (chunk) => Buffer.from(chunk));
  t.deepEqual(Buffer.concat(stored), data);
});

test('content that does not have its digest is refused, and nothing is stored', async (t) => {
  const {ingest, stage, metadata, lifecycle} = await setUp(t, () => commitAtOnce);
  const other = digestOf(Buffer.from('other'));
  const wrong = [
    {reference: digest as Digest, blobs: [{digest: other, spool: await stage(data)}]},
    {reference: other, blobs: []},
  ];
  for (const change of wrong) {
    await t.throwsAsync(ingest.run({...manifest, ...change}), {
      message: /has bytes whose digest is sha256:/,
    });
  }
  t.is(await metadata.manifest(repository, digest as Digest), undefined);
  t.is(await lifecycle.stored(other), undefined);
});

test('a manifest whose blob was deleted before it arrived is not stored', async (t) => {
  const {ingest, stage, metadata} = await setUp(t, ({metadata}) => ({
    async write(_place, _references, commit) {
      await metadata.commit([{type: 'blob.unlink', repository, digest: digestOf(data)}]);
      await commit();
    },
  }));
  const blobs = [{digest: digestOf(data), spool: await stage(data)}];
  await t.throwsAsync(ingest.run({...manifest, reference: digest as Digest, blobs}), {
    message: /was collected before the manifest was put/,
  });
  t.is(await metadata.manifest(repository, digest as Digest), undefined);
});
