import type {ExecutionContext, TestFn} from 'ava';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {parseName, type Tag} from '../../src/oci/name.ts';
import type {Change, Metadata, RepositoryKey} from '../../src/storage/metadata.ts';
import {type MetadataPlace, manifestPut} from './contract-metadata.ts';

const APP: RepositoryKey = {registry: 'docker.io', name: parseName('library/app')};
const OTHER: RepositoryKey = {registry: 'docker.io', name: parseName('library/other')};
const V1 = 'v1' as Tag;

const blob = (text: string): Digest => digestOf(Buffer.from(text));

const tagPut = (digest: Digest, change: Partial<Extract<Change, {type: 'tag.put'}>> = {}): Change => ({
  type: 'tag.put',
  repository: APP,
  name: V1,
  digest,
  origin: 'upstream',
  at: 1_000,
  ...change,
});

const used = (digest: Digest, at: number, age = 0, repository = APP): Change => ({
  type: 'manifest.used',
  repository,
  digest,
  at,
  age,
});

/** Reads all pages of a walk, two rows at a time. */
async function allPages<Row, Cursor>(
  read: (after: Cursor | undefined, limit: number) => Promise<Row[]>,
  cursorOf: (row: Row) => Cursor,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (;;) {
    const last = rows.at(-1);
    const page = await read(last && cursorOf(last), 2);
    if (page.length === 0) return rows;
    rows.push(...page);
  }
}

const linksOf = (metadata: Metadata) =>
  allPages(
    (after: number | undefined, limit) => metadata.links(after, limit),
    ({cursor}) => cursor,
  );

/** What every implementation of the metadata port does for eviction. `create` makes a new, empty one. */
export function evictionContract(
  test: TestFn,
  create: (t: ExecutionContext) => Promise<MetadataPlace>,
): void {
  const setUp = async (t: ExecutionContext): Promise<Metadata> => {
    const metadata = await (await create(t)).open();
    t.teardown(() => metadata.close());
    return metadata;
  };

  test('eviction: the walk over links gives each with its size and its uses, oldest first', async (t) => {
    const metadata = await setUp(t);
    const one = manifestPut('one', {at: 1_000});
    const two = manifestPut('two!', {at: 2_000, origin: 'local'});
    const index = manifestPut('synthesized', {at: 3_000, expiresAt: 9_000});
    await metadata.commit([one, two, index, {...one, repository: OTHER, at: 4_000}]);
    await metadata.commit([used(one.digest, 5_000, 2.5), used(one.digest, 6_000, 3.5)]);
    const plain = {uses: 0, age: 0, expiresAt: undefined};
    const expected = [
      {repository: APP, digest: one.digest, size: 3, origin: 'upstream', linkedAt: 1_000, lastAccess: 6_000},
      {repository: APP, digest: two.digest, size: 4, origin: 'local', linkedAt: 2_000, lastAccess: 2_000},
      {
        repository: APP,
        digest: index.digest,
        size: 11,
        origin: 'upstream',
        linkedAt: 3_000,
        lastAccess: 3_000,
      },
      {
        repository: OTHER,
        digest: one.digest,
        size: 3,
        origin: 'upstream',
        linkedAt: 4_000,
        lastAccess: 4_000,
      },
    ].map((row, place) => ({
      ...row,
      ...plain,
      ...(place === 0 ? {uses: 2, age: 3.5} : {}),
      ...(place === 2 ? {expiresAt: 9_000} : {}),
    }));
    const rows = await linksOf(metadata);
    t.deepEqual(
      rows.map(({cursor, ...row}) => row),
      expected as Omit<(typeof rows)[number], 'cursor'>[],
    );
  });

  test('eviction: the walk over references gives those of all manifests, foreign ones as blobs', async (t) => {
    const metadata = await setUp(t);
    const references = [
      {digest: blob('layer'), size: 1, kind: 'blob' as const},
      {digest: blob('windows'), size: 2, kind: 'foreign' as const},
      {digest: blob('child'), size: 3, kind: 'manifest' as const},
    ];
    const puts = ['one', 'two'].map((text) => manifestPut(text, {references}));
    await metadata.commit(puts);
    const rows = await allPages(
      (after: {manifest: Digest; position: number} | undefined, limit) =>
        metadata.allReferences(after, limit),
      ({manifest, position}) => ({manifest, position}),
    );
    t.deepEqual(
      rows,
      puts
        .map(({digest}) => digest)
        .sort()
        .flatMap((manifest) =>
          references.map(({digest: child, kind}, position) => ({
            manifest,
            position,
            child,
            kind: kind === 'foreign' ? 'blob' : kind,
          })),
        ),
    );
  });

  test('eviction: the walk over tags gives those of all repositories and both origins', async (t) => {
    const metadata = await setUp(t);
    const [one, two] = [manifestPut('one'), manifestPut('two', {repository: OTHER})];
    await metadata.commit([
      one,
      two,
      tagPut(one.digest),
      tagPut(two.digest, {origin: 'local'}),
      tagPut(two.digest, {repository: OTHER, name: 'latest' as Tag}),
    ]);
    const rows = await allPages(
      (after: Awaited<ReturnType<Metadata['allTags']>>[number]['cursor'] | undefined, limit) =>
        metadata.allTags(after, limit),
      ({cursor}) => cursor,
    );
    t.deepEqual(
      rows.map(({cursor, ...row}) => row),
      [
        {repository: APP, name: V1, digest: two.digest, origin: 'local'},
        {repository: APP, name: V1, digest: one.digest, origin: 'upstream'},
        {repository: OTHER, name: 'latest' as Tag, digest: two.digest, origin: 'upstream'},
      ],
    );
  });

  test('eviction: the walk over local links to blobs leaves copies out', async (t) => {
    const metadata = await setUp(t);
    const link = (text: string, origin: 'local' | 'upstream', repository = APP): Change => ({
      type: 'blob.link',
      repository,
      digest: blob(text),
      size: 1,
      origin,
      at: 1,
    });
    await metadata.commit([
      link('pushed', 'local'),
      link('copied', 'upstream'),
      link('pushed', 'local', OTHER),
      link('mine', 'local'),
    ]);
    const rows = await allPages(
      (after: Awaited<ReturnType<Metadata['localBlobLinks']>>[number]['cursor'] | undefined, limit) =>
        metadata.localBlobLinks(after, limit),
      ({cursor}) => cursor,
    );
    t.deepEqual(
      rows.map(({digest}) => digest),
      [blob('pushed'), blob('pushed'), blob('mine')].sort(),
    );
  });

  test('eviction: a pin is kept once, with the time of its first put, until it is deleted', async (t) => {
    const metadata = await setUp(t);
    const pin = {registry: 'docker.io', name: APP.name, reference: V1, at: 5};
    const byDigest = {registry: 'docker.io', name: APP.name, reference: blob('one'), at: 6};
    await metadata.commit([
      {type: 'pin.put', pin},
      {type: 'pin.put', pin: byDigest},
      {type: 'pin.put', pin: {...pin, at: 9}},
    ]);
    t.deepEqual(await metadata.pins(), [byDigest, pin]);
    await metadata.commit([
      {type: 'pin.delete', pin},
      {type: 'pin.delete', pin: {...pin, registry: 'ghcr.io'}},
    ]);
    t.deepEqual(await metadata.pins(), [byDigest]);
  });

  test('eviction: the age of the cache begins with 0 and never falls; a new link has it', async (t) => {
    const metadata = await setUp(t);
    t.is(await metadata.cacheAge(), 0);
    await metadata.commit([{type: 'cache-age.put', age: 2.5}]);
    await metadata.commit([{type: 'cache-age.put', age: 1}]);
    t.is(await metadata.cacheAge(), 2.5);
    await metadata.commit([manifestPut('one')]);
    t.like((await linksOf(metadata))[0], {age: 2.5, uses: 0});
  });

  test('eviction: a use of what is not linked does nothing', async (t) => {
    const metadata = await setUp(t);
    const one = manifestPut('one');
    await metadata.commit([one, used(blob('absent'), 9), used(one.digest, 9, 0, OTHER)]);
    t.like((await linksOf(metadata))[0], {uses: 0, lastAccess: 1_000});
    t.false(await metadata.hasRepository(OTHER));
  });

  test('eviction: a manifest is idle while its last use was not after the given time', async (t) => {
    const metadata = await setUp(t);
    const one = manifestPut('one', {at: 1_000});
    const isIdle = (since: number, now = 100_000, repository = APP) =>
      metadata.commit([], [{type: 'manifest.idle', repository, digest: one.digest, since, now}]);
    await metadata.commit([one]);
    t.true(await isIdle(1_000));
    t.false(await isIdle(1_000, 100_000, OTHER), 'what is not linked is not idle');
    await metadata.commit([used(one.digest, 2_000)]);
    t.false(await isIdle(1_999));
    t.true(await isIdle(2_000));
    t.true(await isIdle(1_000, 1_500), 'a use in the future does not count');
  });
}
