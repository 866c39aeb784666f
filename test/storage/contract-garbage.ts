import type {ExecutionContext, TestFn} from 'ava';
import fc from 'fast-check';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {parseName} from '../../src/oci/name.ts';
import type {Change, Metadata, Origin, RepositoryKey} from '../../src/storage/metadata.ts';
import {type MetadataPlace, manifestPut} from './contract-metadata.ts';

const REPOSITORIES = ['one', 'two'].map(
  (name): RepositoryKey => ({registry: 'local', name: parseName(name)}),
);
const BLOBS = Array.from({length: 4}, (_, index) => digestOf(Buffer.from(`blob ${index}`)));
/** Each manifest's blobs, by their index. */
const MANIFESTS = [[0, 1], [1, 2], [1, 2, 3], []].map((children, index) =>
  manifestPut(`manifest ${index}`, {
    references: children.flatMap((child) => ({
      digest: BLOBS[child] as Digest,
      size: 5,
      kind: 'blob' as const,
    })),
  }),
);
const EVER = Number.MAX_SAFE_INTEGER;

/** The plainest model of the metadata: unreferenced content is found by looking at everything. */
interface MetadataModel {
  manifests: Set<Digest>;
  /** By repository and digest. */
  manifestLinks: Map<string, {repository: RepositoryKey; digest: Digest; origin: Origin}>;
  blobs: Map<Digest, 'ready' | 'deleting'>;
  blobLinks: Map<string, {repository: RepositoryKey; digest: Digest; origin: Origin}>;
}

const keyOf = ({name}: RepositoryKey, digest: Digest): string => `${name} ${digest}`;

/** A blob that is being deleted is not stored, and no link may rely on its bytes. */
const isRefused = (model: MetadataModel, change: Change): boolean =>
  (change.type === 'blob.put' || (change.type === 'blob.link' && change.origin === 'local')) &&
  model.blobs.get(change.digest) === 'deleting';

function applyTo(model: MetadataModel, change: Change): void {
  const link = (
    links: MetadataModel['blobLinks'],
    repository: RepositoryKey,
    digest: Digest,
    origin: Origin,
  ) => {
    const known = links.get(keyOf(repository, digest));
    links.set(keyOf(repository, digest), {
      repository,
      digest,
      origin: known?.origin === 'local' ? 'local' : origin,
    });
  };
  switch (change.type) {
    case 'manifest.put':
      model.manifests.add(change.digest);
      link(model.manifestLinks, change.repository, change.digest, change.origin);
      return;
    case 'manifest.unlink':
    case 'manifest.delete': {
      const key = keyOf(change.repository, change.digest);
      if (change.type === 'manifest.unlink' && model.manifestLinks.get(key)?.origin === 'local') return;
      model.manifestLinks.delete(key);
      return;
    }
    case 'manifest.collect':
      if (![...model.manifestLinks.values()].some(({digest}) => digest === change.digest)) {
        model.manifests.delete(change.digest);
      }
      return;
    case 'blob.put':
      model.blobs.set(change.digest, 'ready');
      return;
    case 'blob.deleting':
      if (model.blobs.has(change.digest)) model.blobs.set(change.digest, 'deleting');
      return;
    case 'blob.delete':
      model.blobs.delete(change.digest);
      return;
    case 'blob.link':
      link(model.blobLinks, change.repository, change.digest, change.origin);
      return;
    case 'blob.unlink':
      model.blobLinks.delete(keyOf(change.repository, change.digest));
  }
}

function garbageOf({manifests, manifestLinks, blobs, blobLinks}: MetadataModel) {
  const named = new Set(
    [...manifestLinks.values()].flatMap(({repository, digest}) =>
      (MANIFESTS.find((put) => put.digest === digest)?.references ?? []).map((child) =>
        keyOf(repository, child.digest),
      ),
    ),
  );
  const linkedManifests = new Set([...manifestLinks.values()].map(({digest}) => digest));
  const linkedBlobs = new Set([...blobLinks.values()].map(({digest}) => digest));
  return {
    links: [...blobLinks]
      .filter(([key, {origin}]) => origin === 'local' && !named.has(key))
      .map(([key]) => key)
      .sort(),
    manifests: [...manifests].filter((digest) => !linkedManifests.has(digest)).sort(),
    blobs: [...blobs]
      .filter(([digest, state]) => state === 'deleting' || !linkedBlobs.has(digest))
      .map(([digest]) => digest)
      .sort(),
  };
}

async function foundIn(metadata: Metadata) {
  const links = await metadata.unreferencedBlobs(EVER, 100);
  const manifests = await metadata.uncollectedManifests(100);
  const blobs = await metadata.uncollectedBlobs(EVER, 100);
  return {
    links: links.map(({repository, digest}) => keyOf(repository, digest)).sort(),
    manifests: manifests.map(({digest}) => digest).sort(),
    blobs: blobs.map(({digest}) => digest).sort(),
  };
}

const repository = fc.constantFrom(...REPOSITORIES);
const digest = fc.constantFrom(...BLOBS);
const origin = fc.constantFrom<Origin>('local', 'upstream');
const manifest = fc.constantFrom(...MANIFESTS.map((put) => put.digest));

const change: fc.Arbitrary<Change> = fc.oneof(
  fc
    .record({put: fc.constantFrom(...MANIFESTS), repository, origin})
    .map(({put, ...rest}): Change => ({...put, ...rest})),
  fc.record({
    type: fc.constantFrom('manifest.unlink' as const, 'manifest.delete' as const),
    repository,
    digest: manifest,
  }),
  fc.record({type: fc.constant('manifest.collect' as const), digest: manifest}),
  fc.record({type: fc.constant('blob.put' as const), digest, size: fc.constant(5), at: fc.nat()}),
  fc.record({type: fc.constantFrom('blob.deleting' as const, 'blob.delete' as const), digest}),
  fc.record({
    type: fc.constant('blob.link' as const),
    repository,
    digest,
    size: fc.constant(5),
    origin,
    at: fc.nat(),
  }),
  fc.record({type: fc.constant('blob.unlink' as const), repository, digest}),
);

/** What every implementation of the metadata port finds to collect. `create` makes a new, empty one. */
export function garbageContract(test: TestFn, create: (t: ExecutionContext) => Promise<MetadataPlace>): void {
  test('garbage: after any commits, exactly the unreferenced content is found', async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(change, {minLength: 100, maxLength: 200}), async (changes) => {
        const metadata = await (await create(t)).open();
        const model: MetadataModel = {
          manifests: new Set(),
          manifestLinks: new Map(),
          blobs: new Map(),
          blobLinks: new Map(),
        };
        try {
          for (const each of changes) {
            const refused = isRefused(model, each);
            t.is(await metadata.commit([each]), !refused);
            if (!refused) applyTo(model, each);
            t.deepEqual(await foundIn(metadata), garbageOf(model));
          }
        } finally {
          await metadata.close();
        }
      }),
      {numRuns: 6},
    );
  });
}
