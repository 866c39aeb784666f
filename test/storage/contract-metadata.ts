import type {ExecutionContext, TestFn} from 'ava';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {parseName, type RepositoryName, type Tag} from '../../src/oci/name.ts';
import type {
  AskTimes,
  Change,
  Metadata,
  Precondition,
  PullRecord,
  ReferenceRecord,
  RepositoryKey,
  RobotRecord,
} from '../../src/storage/metadata.ts';

/** Metadata that outlive the process: every `open` sees what another process would. */
export interface MetadataPlace {
  open(): Promise<Metadata>;
}

type ChangeOf<Type extends Change['type']> = Extract<Change, {type: Type}>;

const APP: RepositoryKey = {registry: 'docker.io', name: parseName('library/app')};
const OTHER: RepositoryKey = {registry: 'docker.io', name: parseName('library/other')};
const SAME_NAME_ELSEWHERE: RepositoryKey = {registry: 'ghcr.io', name: parseName('library/app')};
const V1 = 'v1' as Tag;
const MEDIA_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** A change that stores a manifest with this text. */
export function manifestPut(
  text: string,
  change: Partial<ChangeOf<'manifest.put'>> = {},
): ChangeOf<'manifest.put'> {
  const bytes = Buffer.from(text);
  return {
    type: 'manifest.put',
    repository: APP,
    digest: digestOf(bytes),
    mediaType: MEDIA_TYPE,
    bytes,
    edge: undefined,
    references: [],
    origin: 'upstream',
    at: 1_000,
    ...change,
  };
}

const tagPut = (digest: Digest, change: Partial<ChangeOf<'tag.put'>> = {}): ChangeOf<'tag.put'> => ({
  type: 'tag.put',
  repository: APP,
  name: V1,
  digest,
  origin: 'upstream',
  at: 2_000,
  ...change,
});

/** What every implementation of the metadata port does. `create` makes a new, empty one. */
export function metadataContract(
  test: TestFn,
  create: (t: ExecutionContext) => Promise<MetadataPlace>,
): void {
  const setUp = async (t: ExecutionContext) => {
    const place = await create(t);
    const metadata = await place.open();
    t.teardown(() => metadata.close());
    return {place, metadata};
  };

  const reopen = async (t: ExecutionContext, place: MetadataPlace, metadata: Metadata): Promise<Metadata> => {
    await metadata.close();
    const reopened = await place.open();
    t.teardown(() => reopened.close());
    return reopened;
  };

  test('metadata: the walk over pushed manifests skips copies and continues after its cursor', async (t) => {
    const {metadata} = await setUp(t);
    const puts = [
      manifestPut('one', {origin: 'local'}),
      manifestPut('copy'),
      manifestPut('two', {origin: 'local', repository: OTHER, mediaType: 'text/any'}),
      manifestPut('one', {origin: 'local', repository: OTHER}),
    ];
    for (const put of puts) await metadata.commit([put]);
    const first = await metadata.localManifests(undefined, 2);
    const rest = await metadata.localManifests(first.at(-1)?.cursor, 10);
    t.deepEqual(
      [...first, ...rest].map(({cursor, ...manifest}) => manifest),
      [puts[0], puts[2], puts[3]].map((put) => {
        const {repository, digest, mediaType, bytes} = put as ChangeOf<'manifest.put'>;
        return {repository, digest, mediaType, origin: 'local' as const, bytes: Buffer.from(bytes)};
      }),
    );
    t.deepEqual(await metadata.localManifests(rest.at(-1)?.cursor, 10), []);
  });

  test('metadata: a snapshot sees no later commit, and delays none', async (t) => {
    const {metadata} = await setUp(t);
    const put = manifestPut('one');
    await metadata.commit([put, tagPut(put.digest)]);
    const snapshot = await metadata.snapshot();
    await metadata.commit([{type: 'manifest.unlink', repository: APP, digest: put.digest}]);
    await metadata.commit([{type: 'manifest.collect', digest: put.digest}]);
    await metadata.commit([manifestPut('two', {repository: OTHER})]);
    t.is((await snapshot.manifest(APP, put.digest))?.bytes.toString(), 'one');
    t.is((await snapshot.tag(APP, V1))?.digest, put.digest);
    t.false(await snapshot.hasRepository(OTHER));
    t.is(await metadata.manifest(APP, put.digest), undefined);
    await snapshot.close();
    const next = await metadata.snapshot();
    t.teardown(() => next.close());
    t.is(await next.tag(APP, V1), undefined);
  });

  test('metadata: a new database is empty', async (t) => {
    const {metadata} = await setUp(t);
    const digest = digestOf(Buffer.from('absent'));
    t.deepEqual(await metadata.repositories('docker.io', {limit: 10}), []);
    t.false(await metadata.hasRepository(APP));
    t.is(await metadata.manifest(APP, digest), undefined);
    t.is(await metadata.storedManifest(digest), undefined);
    t.deepEqual(await metadata.references(digest), []);
    t.is(await metadata.promisedSize(APP, digest), undefined);
    t.is(await metadata.tag(APP, V1), undefined);
    t.is(await metadata.tagList(APP), undefined);
    t.is(await metadata.blob(digest), undefined);
    t.is(await metadata.blobLink(APP, digest), undefined);
  });

  for (const algorithm of ['sha256', 'sha512'] as const) {
    test(`metadata: a manifest is stored byte for byte, in its own repository only (${algorithm})`, async (t) => {
      const {metadata} = await setUp(t);
      const bytes = Buffer.from([0, 255, 128, 10, 0]);
      const digest = digestOf(bytes, algorithm);
      t.true(await metadata.commit([manifestPut('', {bytes, digest, mediaType: 'text/any'})]));
      const record = await metadata.manifest(APP, digest);
      t.deepEqual(record, {digest, mediaType: 'text/any', bytes, origin: 'upstream', linkedAt: 1_000});
      t.true(Buffer.isBuffer(record?.bytes));
      t.deepEqual(await metadata.storedManifest(digest), {mediaType: 'text/any', bytes});
      t.is(await metadata.manifest(OTHER, digest), undefined);
      t.is(await metadata.manifest(SAME_NAME_ELSEWHERE, digest), undefined);
    });

    test(`metadata: tags, blobs, links and references take any supported digest (${algorithm})`, async (t) => {
      const {metadata} = await setUp(t);
      const digest = digestOf(Buffer.from('x'), algorithm);
      const references: ReferenceRecord[] = [{digest, size: 9, kind: 'blob'}];
      const put = manifestPut('parent', {digest: digestOf(Buffer.from('parent'), algorithm), references});
      await metadata.commit([
        put,
        tagPut(digest),
        {type: 'blob.put', digest, size: 9, at: 3},
        {type: 'blob.link', repository: APP, digest, size: 9, origin: 'upstream', at: 4},
      ]);
      t.is((await metadata.tag(APP, V1))?.digest, digest);
      t.deepEqual(await metadata.references(put.digest), references);
      t.is(await metadata.promisedSize(APP, digest), 9);
      t.deepEqual(await metadata.blob(digest), {digest, size: 9, state: 'ready', storedAt: 3});
      t.deepEqual(await metadata.blobLink(APP, digest), {digest, size: 9, origin: 'upstream', linkedAt: 4});
    });
  }

  test('metadata: a manifest may be large, and the caller may go on using its bytes', async (t) => {
    const {metadata} = await setUp(t);
    const large = manifestPut('x'.repeat(4 * 1024 * 1024));
    const pooled = Buffer.from('a slice of the pool');
    const small = manifestPut('', {bytes: pooled, digest: digestOf(pooled)});
    const committed = metadata.commit([large, small]);
    await committed;
    t.is(large.bytes.byteLength, 4 * 1024 * 1024);
    t.is(pooled.toString(), 'a slice of the pool');
    t.true((await metadata.manifest(APP, large.digest))?.bytes.equals(large.bytes));
    t.true((await metadata.manifest(APP, small.digest))?.bytes.equals(pooled));
  });

  test('metadata: a link gives another repository the same bytes under its own media type', async (t) => {
    const {metadata} = await setUp(t);
    const put = manifestPut('{}');
    await metadata.commit([put]);
    const {digest} = put;
    await metadata.commit([
      {
        type: 'manifest.link',
        repository: OTHER,
        digest,
        mediaType: 'other/type',
        edge: undefined,
        origin: 'local',
        at: 7,
      },
    ]);
    t.deepEqual(await metadata.manifest(OTHER, digest), {
      digest,
      mediaType: 'other/type',
      bytes: Buffer.from('{}'),
      origin: 'local',
      linkedAt: 7,
    });
    t.is((await metadata.manifest(APP, digest))?.mediaType, MEDIA_TYPE);
  });

  test('metadata: linking again renews the time; a local manifest stays local, with its own media type', async (t) => {
    const {metadata} = await setUp(t);
    const put = manifestPut('{}');
    await metadata.commit([put]);
    await metadata.commit([{...put, mediaType: 'newer/type', at: 5_000}]);
    t.like(await metadata.manifest(APP, put.digest), {mediaType: 'newer/type', linkedAt: 5_000});
    await metadata.commit([{...put, mediaType: 'pushed/type', origin: 'local', at: 6_000}]);
    await metadata.commit([{...put, mediaType: 'copied/type', at: 7_000}]);
    t.like(await metadata.manifest(APP, put.digest), {
      mediaType: 'pushed/type',
      origin: 'local',
      linkedAt: 7_000,
    });

    const {digest} = put;
    const link = {type: 'blob.link', repository: APP, digest, size: 1, origin: 'local', at: 1} as const;
    await metadata.commit([link]);
    await metadata.commit([{...link, origin: 'upstream', at: 2}]);
    t.deepEqual(await metadata.blobLink(APP, digest), {digest, size: 1, origin: 'local', linkedAt: 2});
  });

  test('metadata: references keep the order of the manifest, including repeated ones', async (t) => {
    const {metadata} = await setUp(t);
    const references = Array.from(
      {length: 30},
      (_, index): ReferenceRecord => ({
        digest: digestOf(Buffer.from(`${(index * 7) % 20}`), index % 3 === 0 ? 'sha512' : 'sha256'),
        size: index,
        kind: (['manifest', 'blob', 'foreign'] as const)[index % 3] ?? 'blob',
      }),
    );
    const put = manifestPut('{}', {references});
    await metadata.commit([put]);
    await metadata.commit([{...put, repository: OTHER}]);
    t.deepEqual(await metadata.references(put.digest), references);
  });

  test('metadata: a manifest names the size of a blob in its own repository only', async (t) => {
    const {metadata} = await setUp(t);
    const blob = digestOf(Buffer.from('layer'));
    const child = digestOf(Buffer.from('child manifest'));
    const put = manifestPut('{}', {
      references: [
        {digest: blob, size: 123_456_789_012, kind: 'blob'},
        {digest: child, size: 5, kind: 'manifest'},
      ],
    });
    await metadata.commit([put, tagPut(put.digest, {repository: OTHER})]);
    t.is(await metadata.promisedSize(APP, blob), 123_456_789_012);
    t.is(await metadata.promisedSize(APP, child), undefined, 'a manifest is no blob');
    t.is(await metadata.promisedSize(OTHER, blob), undefined);
    t.is(await metadata.promisedSize(SAME_NAME_ELSEWHERE, blob), undefined);
  });

  test('metadata: a tag can be put, moved, marked as gone, put again and deleted', async (t) => {
    const {metadata} = await setUp(t);
    const [one, two] = [digestOf(Buffer.from('1')), digestOf(Buffer.from('2'))];
    const tag = () => metadata.tag(APP, V1);
    const record = {name: V1, digest: one, origin: 'upstream', checkedAt: 10, goneAt: undefined} as const;
    await metadata.commit([tagPut(one, {at: 10})]);
    t.deepEqual(await tag(), record);
    await metadata.commit([tagPut(two, {at: 20})]);
    t.deepEqual(await tag(), {...record, digest: two, checkedAt: 20});
    await metadata.commit([{type: 'tag.gone', repository: APP, name: V1, at: 30}]);
    t.deepEqual(await tag(), {...record, digest: two, checkedAt: 30, goneAt: 30});
    await metadata.commit([{type: 'tag.gone', repository: APP, name: V1, at: 40}]);
    t.deepEqual(await tag(), {...record, digest: two, checkedAt: 40, goneAt: 30}, 'the first time is kept');
    await metadata.commit([tagPut(two, {at: 50})]);
    t.deepEqual(await tag(), {...record, digest: two, checkedAt: 50});
    await metadata.commit([{type: 'tag.delete', repository: APP, name: V1, origin: 'upstream'}]);
    t.is(await tag(), undefined);
  });

  test('metadata: a tag that is gone since a time in the future is corrected by the next answer', async (t) => {
    const {metadata} = await setUp(t);
    await metadata.commit([
      tagPut(digestOf(Buffer.from('1'))),
      {type: 'tag.gone', repository: APP, name: V1, at: 9_000},
      {type: 'tag.gone', repository: APP, name: V1, at: 5_000},
    ]);
    t.is((await metadata.tag(APP, V1))?.goneAt, 5_000);
  });

  test('metadata: tags differ by case, by repository and by registry', async (t) => {
    const {metadata} = await setUp(t);
    const digest = digestOf(Buffer.from('1'));
    await metadata.commit([tagPut(digest, {name: 'V1' as Tag})]);
    t.is(await metadata.tag(APP, V1), undefined);
    t.is(await metadata.tag(OTHER, 'V1' as Tag), undefined);
    t.is(await metadata.tag(SAME_NAME_ELSEWHERE, 'V1' as Tag), undefined);
    t.is((await metadata.tag(APP, 'V1' as Tag))?.digest, digest);
  });

  test("metadata: a local tag hides the upstream's, which is visible again when the local one is deleted", async (t) => {
    const {metadata} = await setUp(t);
    const [theirs, ours] = [digestOf(Buffer.from('theirs')), digestOf(Buffer.from('ours'))];
    await metadata.commit([tagPut(ours, {origin: 'local'}), tagPut(theirs)]);
    t.like(await metadata.tag(APP, V1), {digest: ours, origin: 'local'});
    await metadata.commit([{type: 'tag.gone', repository: APP, name: V1, at: 9}]);
    t.like(await metadata.tag(APP, V1), {digest: ours, goneAt: undefined});
    await metadata.commit([{type: 'tag.delete', repository: APP, name: V1, origin: 'local'}]);
    t.like(await metadata.tag(APP, V1), {digest: theirs, origin: 'upstream', goneAt: 9});
  });

  test('metadata: the absence of a tag does not create a repository', async (t) => {
    const {metadata} = await setUp(t);
    await metadata.commit([
      {type: 'tag.gone', repository: APP, name: V1, at: 9},
      {type: 'tag.delete', repository: OTHER, name: V1, origin: 'local'},
    ]);
    t.is(await metadata.tag(APP, V1), undefined);
    t.deepEqual(await metadata.repositories('docker.io', {limit: 10}), []);
  });

  test('metadata: a tag list keeps its order and is replaced as a whole', async (t) => {
    const {metadata} = await setUp(t);
    const put = {type: 'tag-list.put', repository: APP, names: ['B', 'a', 'ä'], at: 1} as const;
    await metadata.commit([{...put, names: [...put.names]}]);
    t.deepEqual(await metadata.tagList(APP), {names: ['B', 'a', 'ä'], checkedAt: 1});
    t.is(await metadata.tagList(OTHER), undefined);
    await metadata.commit([{...put, names: [], at: 2}]);
    t.deepEqual(await metadata.tagList(APP), {names: [], checkedAt: 2});
  });

  test("metadata: when the upstream no longer has a repository, only that repository's tag list is deleted", async (t) => {
    const {metadata} = await setUp(t);
    for (const repository of [APP, OTHER])
      await metadata.commit([{type: 'tag-list.put', repository, names: ['a'], at: 1}]);
    await metadata.commit([
      {type: 'tag-list.delete', repository: APP},
      {type: 'tag-list.delete', repository: SAME_NAME_ELSEWHERE},
    ]);
    t.is(await metadata.tagList(APP), undefined);
    t.truthy(await metadata.tagList(OTHER));
    t.deepEqual(await metadata.repositories('ghcr.io', {limit: 10}), []);
  });

  const digest = digestOf(Buffer.from('1'));
  const answers: [string, Change, (asked: AskTimes) => Precondition][] = [
    [
      'a tag',
      tagPut(digest, {at: 2000}),
      (asked) => ({type: 'tag.latest', repository: APP, name: V1, ...asked}),
    ],
    [
      'a list of tags',
      {type: 'tag-list.put', repository: APP, names: ['a'], at: 2000},
      (asked) => ({type: 'tag-list.latest', repository: APP, ...asked}),
    ],
    [
      'a list of referrers',
      {type: 'referrer-list.put', repository: APP, subject: digest, source: 'api', descriptors: [], at: 2000},
      (asked) => ({type: 'referrer-list.latest', repository: APP, subject: digest, ...asked}),
    ],
  ];
  for (const [what, answer, latest] of answers) {
    test(`metadata: of several answers about ${what}, the answer to the latest question is kept`, async (t) => {
      const {metadata} = await setUp(t);
      const commit = (askedAt: number, now: number) =>
        metadata.commit([{...answer, at: askedAt} as Change], [latest({askedAt, now})]);
      t.true(await commit(2000, 2500), 'the first one');
      t.false(await commit(1999, 3000), 'an older one');
      t.true(await commit(2000, 3000), 'one of the same moment');
      t.true(await commit(2001, 3000), 'a newer one');
      t.true(await commit(1000, 1500), 'one that comes while the known one lies in the future');
      t.false(await commit(999, 1500));
    });
  }

  test("metadata: neither a local tag nor another repository's counts as a later answer about a tag", async (t) => {
    const {metadata} = await setUp(t);
    await metadata.commit([
      tagPut(digest, {origin: 'local', at: 2000}),
      tagPut(digest, {repository: OTHER, at: 2000}),
    ]);
    t.true(
      await metadata.commit(
        [tagPut(digest, {at: 1000})],
        [{type: 'tag.latest', repository: APP, name: V1, askedAt: 1000, now: 3000}],
      ),
    );
  });

  test('metadata: deleting the bytes of a blob leaves its links', async (t) => {
    const {metadata} = await setUp(t);
    const digest = digestOf(Buffer.from('blob'));
    await metadata.commit([
      {type: 'blob.put', digest, size: 4, at: 1},
      {type: 'blob.link', repository: APP, digest, size: 4, origin: 'upstream', at: 2},
    ]);
    t.is(await metadata.blobLink(OTHER, digest), undefined);
    await metadata.commit([{type: 'blob.delete', digest}]);
    t.is(await metadata.blob(digest), undefined);
    t.deepEqual(await metadata.blobLink(APP, digest), {digest, size: 4, origin: 'upstream', linkedAt: 2});
    await metadata.commit([{type: 'blob.put', digest, size: 4, at: 3}]);
    t.like(await metadata.blob(digest), {state: 'ready', storedAt: 3});
  });

  test('metadata: the bytes that were pushed to a repository are those of its local links', async (t) => {
    const {metadata} = await setUp(t);
    const digests = ['a', 'b', 'c'].map((text) => digestOf(Buffer.from(text)));
    t.is(await metadata.localBlobBytes(APP), 0);
    await metadata.commit(
      digests.map((digest, index) => {
        const origin = index === 2 ? ('upstream' as const) : ('local' as const);
        return {type: 'blob.link', repository: APP, digest, size: 10 ** index, origin, at: 1};
      }),
    );
    t.is(await metadata.localBlobBytes(APP), 11);
    t.is(await metadata.localBlobBytes(OTHER), 0);
    await metadata.commit([{type: 'blob.unlink', repository: APP, digest: digests[1] as Digest}]);
    t.is(await metadata.localBlobBytes(APP), 1);
    await metadata.commit([{type: 'blob.unlink', repository: APP, digest: digests[0] as Digest}]);
    t.is(await metadata.localBlobBytes(APP), 0);
  });

  test('metadata: all blobs are listed, and their bytes counted, page by page', async (t) => {
    const {metadata} = await setUp(t);
    t.deepEqual(await metadata.blobBytes(undefined, 2), {bytes: 0, last: undefined});
    const digests = ['a', 'b', 'c'].map((text) => digestOf(Buffer.from(text))).sort();
    await metadata.commit(digests.map((digest, at) => ({type: 'blob.put', digest, size: 10 ** at, at})));
    t.deepEqual(await metadata.blobBytes(undefined, 2), {bytes: 11, last: digests[1]});
    t.deepEqual(await metadata.blobBytes(digests[1], 2), {bytes: 100, last: digests[2]});
    t.deepEqual(await metadata.blobBytes(digests[2], 2), {bytes: 0, last: undefined});
    t.deepEqual(await metadata.blobs(digests[0], 1), [
      {digest: digests[1], size: 10, state: 'ready', storedAt: 1},
    ]);
    t.deepEqual(await metadata.blobs(digests[2], 1), []);
  });

  test('metadata: repositories are listed in byte order, page by page, one registry at a time', async (t) => {
    const {metadata} = await setUp(t);
    const names = ['b', 'a/b', 'a', 'a-b', 'a_b', 'a.b', 'ab', 'z9', 'a/b/c', '0'].map(parseName);
    const digest = digestOf(Buffer.from('1'));
    await metadata.commit([
      ...names.map((name) => tagPut(digest, {repository: {registry: 'docker.io', name}})),
      tagPut(digest, {repository: {registry: 'ghcr.io', name: parseName('elsewhere')}}),
    ]);
    const sorted = ['0', 'a', 'a-b', 'a.b', 'a/b', 'a/b/c', 'a_b', 'ab', 'b', 'z9'];
    t.deepEqual(await metadata.repositories('docker.io', {limit: 100}), sorted as RepositoryName[]);
    const paged: string[] = [];
    for (;;) {
      const after = paged.at(-1);
      const page = await metadata.repositories('docker.io', {limit: 3, ...(after ? {after} : {})});
      if (page.length === 0) break;
      t.true(page.length <= 3);
      paged.push(...page);
    }
    t.deepEqual(paged, sorted);
    t.deepEqual(
      await metadata.repositories('docker.io', {after: 'a/', limit: 2}),
      ['a/b', 'a/b/c'].map(parseName),
      '`after` need not exist',
    );
    t.deepEqual(await metadata.repositories('docker.io', {limit: 0}), []);
  });

  test('metadata: a repository exists from its first content on, even after the content is gone', async (t) => {
    const {place, metadata} = await setUp(t);
    const {digest} = manifestPut('x');
    await metadata.commit([
      {type: 'manifest.delete', repository: APP, digest},
      {type: 'tag.delete', repository: APP, name: V1, origin: 'local'},
      {type: 'blob.unlink', repository: APP, digest},
    ]);
    t.false(await metadata.hasRepository(APP));
    await metadata.commit([
      {type: 'blob.link', repository: APP, digest, size: 5, origin: 'local', at: 1_000},
      manifestPut('y', {repository: OTHER}),
    ]);
    t.true(await metadata.hasRepository(APP));
    t.true(await metadata.hasRepository(OTHER));
    t.false(await metadata.hasRepository(SAME_NAME_ELSEWHERE));
    await metadata.commit([{type: 'blob.unlink', repository: APP, digest}]);
    t.true(await metadata.hasRepository(APP));
    t.true(await (await reopen(t, place, metadata)).hasRepository(APP));
  });

  test('metadata: 32 simultaneous commits are all made, and each is visible as soon as it resolves', async (t) => {
    const {metadata} = await setUp(t);
    await Promise.all(
      Array.from({length: 32}, async (_, index) => {
        const put = manifestPut(`manifest ${index}`, {origin: index % 4 === 0 ? 'local' : 'upstream'});
        const name = `tag-${index}` as Tag;
        t.true(await metadata.commit([put, tagPut(put.digest, {name})]));
        t.is((await metadata.manifest(APP, put.digest))?.bytes.toString(), `manifest ${index}`);
        t.is((await metadata.tag(APP, name))?.digest, put.digest);
      }),
    );
    t.deepEqual(await metadata.repositories('docker.io', {limit: 10}), [APP.name]);
  });

  test('metadata: commits are made in the order in which they were requested', async (t) => {
    const {metadata} = await setUp(t);
    const digests = Array.from({length: 100}, (_, index) => digestOf(Buffer.from(`${index}`)));
    await Promise.all(digests.map((digest) => metadata.commit([tagPut(digest)])));
    t.is((await metadata.tag(APP, V1))?.digest, digests.at(-1));
  });

  test('metadata: a precondition that does not hold changes nothing', async (t) => {
    const {metadata} = await setUp(t);
    const [one, two] = [digestOf(Buffer.from('1')), digestOf(Buffer.from('2'))];
    const is = (digest: Digest | undefined) =>
      ({type: 'tag.is', repository: APP, name: V1, origin: 'upstream', digest}) as const;

    t.false(await metadata.commit([tagPut(one)], [is(one)]), 'the repository is not known');
    t.deepEqual(await metadata.repositories('docker.io', {limit: 10}), []);
    t.true(await metadata.commit([tagPut(one)], [is(undefined)]));
    t.false(await metadata.commit([tagPut(two)], [is(undefined)]), 'there is one by now');
    t.false(await metadata.commit([tagPut(two)], [is(two)]));
    t.is((await metadata.tag(APP, V1))?.digest, one);
    t.true(await metadata.commit([tagPut(two)], [is(one)]));
    t.is((await metadata.tag(APP, V1))?.digest, two);
    t.false(await metadata.commit([tagPut(one, {origin: 'local'})], [{...is(two), origin: 'local'}]));
    t.true(await metadata.commit([tagPut(one, {origin: 'local'})], [{...is(undefined), origin: 'local'}]));
  });

  test('metadata: a commit can require that a manifest is linked to its repository', async (t) => {
    const {metadata} = await setUp(t);
    const put = manifestPut('{}');
    const linked = {type: 'manifest.linked', repository: APP, digest: put.digest} as const;
    t.false(await metadata.commit([tagPut(put.digest)], [linked]));
    await metadata.commit([{...put, repository: OTHER}]);
    t.false(await metadata.commit([tagPut(put.digest)], [linked]), 'linked elsewhere is not linked here');
    await metadata.commit([put]);
    t.false(
      await metadata.commit(
        [tagPut(put.digest)],
        [linked, {...linked, digest: digestOf(Buffer.from('absent'))}],
      ),
      'every precondition must hold',
    );
    t.is(await metadata.tag(APP, V1), undefined);
    t.true(await metadata.commit([tagPut(put.digest)], [linked]));
  });

  test('metadata: of many simultaneous commits that would create a tag, exactly one does', async (t) => {
    const {metadata} = await setUp(t);
    const digests = Array.from({length: 20}, (_, index) => digestOf(Buffer.from(`${index}`)));
    const results = await Promise.all(
      digests.map((digest) =>
        metadata.commit(
          [tagPut(digest)],
          [{type: 'tag.is', repository: APP, name: V1, origin: 'upstream', digest: undefined}],
        ),
      ),
    );
    t.is(results.filter((made) => made).length, 1);
    t.is((await metadata.tag(APP, V1))?.digest, digests[results.indexOf(true)]);
  });

  test('metadata: a commit that fails changes nothing and does not affect others', async (t) => {
    const {metadata} = await setUp(t);
    const put = manifestPut('{}');
    const missing = digestOf(Buffer.from('bytes that are not here'));
    const link = {
      type: 'manifest.link',
      repository: OTHER,
      digest: missing,
      mediaType: MEDIA_TYPE,
      edge: undefined,
      origin: 'upstream',
      at: 1,
    } as const;
    const [before, failing, after] = await Promise.allSettled([
      metadata.commit([put]),
      metadata.commit([tagPut(put.digest, {repository: OTHER}), link]),
      metadata.commit([tagPut(put.digest)]),
    ]);
    t.is(before.status, 'fulfilled');
    t.is(after.status, 'fulfilled');
    t.is(failing.status, 'rejected', 'bytes that are not here cannot be linked');
    t.is(await metadata.tag(OTHER, V1), undefined);
    t.deepEqual(await metadata.repositories('docker.io', {limit: 10}), [APP.name]);
    t.is((await metadata.tag(APP, V1))?.digest, put.digest);
  });

  test('metadata: an empty commit succeeds', async (t) => {
    const {metadata} = await setUp(t);
    t.true(await metadata.commit([]));
  });

  test('metadata: everything is still there after closing and reopening', async (t) => {
    const {place, metadata} = await setUp(t);
    const blob = digestOf(Buffer.from('blob'), 'sha512');
    const put = manifestPut('{}', {references: [{digest: blob, size: 4, kind: 'blob'}]});
    await metadata.commit([
      put,
      tagPut(put.digest),
      {type: 'tag-list.put', repository: APP, names: ['v1'], at: 1},
      {type: 'blob.put', digest: blob, size: 4, at: 1},
      {type: 'blob.link', repository: APP, digest: blob, size: 4, origin: 'local', at: 1},
    ]);
    const reads = async (from: Metadata) => [
      await from.repositories('docker.io', {limit: 10}),
      await from.manifest(APP, put.digest),
      await from.storedManifest(put.digest),
      await from.references(put.digest),
      await from.promisedSize(APP, blob),
      await from.tag(APP, V1),
      await from.tagList(APP),
      await from.blob(blob),
      await from.blobLink(APP, blob),
    ];
    const before = await reads(metadata);
    t.true(before.every((value) => value !== undefined));
    t.deepEqual(await reads(await reopen(t, place, metadata)), before);
  });

  test('metadata: close waits for the running commits and accepts no more', async (t) => {
    const {place, metadata} = await setUp(t);
    const put = manifestPut('{}');
    const commits = Array.from({length: 10}, (_, index) =>
      metadata.commit([put, tagPut(put.digest, {name: `tag-${index}` as Tag})]),
    );
    const closing = metadata.close();
    await t.throwsAsync(() => metadata.commit([put]), {message: /is closed/});
    t.deepEqual(new Set(await Promise.all(commits)), new Set([true]));
    await closing;
    const reopened = await reopen(t, place, metadata);
    t.is((await reopened.tag(APP, 'tag-9' as Tag))?.digest, put.digest);
  });

  test('metadata: pulls of one caller add up, those of others stay apart, and the oldest are forgotten', async (t) => {
    const {metadata} = await setUp(t);
    const digest = digestOf(Buffer.from('pulled'));
    const pull = {
      digest,
      caller: 'user:a',
      repository: APP,
      address: '10.0.0.1',
      first: 1,
      last: 1,
      pulls: 1,
    };
    const put = (record: PullRecord) => metadata.commit([{type: 'pull.put', pull: record}]);
    await put(pull);
    await put({...pull, address: undefined, first: 5, last: 6, pulls: 2});
    await put({...pull, caller: 'user:b', first: 3, last: 3});
    await put({...pull, repository: OTHER, first: 9, last: 9});
    const kept = [
      {...pull, repository: OTHER, first: 9, last: 9},
      {...pull, address: undefined, last: 6, pulls: 3},
    ];
    t.deepEqual(await metadata.pullsOf(digest, 10), [
      ...kept,
      {...pull, caller: 'user:b', first: 3, last: 3},
    ]);
    t.deepEqual(await metadata.pullsOf(digestOf(Buffer.from('other')), 10), []);
    t.is(await metadata.lastPullBeyond(3), undefined);
    t.is(await metadata.lastPullBeyond(2), 3);
    await metadata.commit([{type: 'pull.forget', until: 3}]);
    t.deepEqual(await metadata.pullsOf(digest, 10), kept);
    t.deepEqual(await metadata.pullsOf(digest, 1), kept.slice(0, 1));
  });

  test('metadata: robots are there until they are deleted, and their last use is never set back', async (t) => {
    const {metadata} = await setUp(t);
    const robot: RobotRecord = {
      name: 'ci',
      id: 'id-1',
      secretHash: 'a'.repeat(64),
      may: ['pull', 'push'],
      on: ['apps.local/**'],
      createdAt: 1,
      expiresAt: 100,
      usedAt: undefined,
    };
    const other = {...robot, name: 'a', id: 'id-2', secretHash: 'b'.repeat(64), expiresAt: undefined};
    await metadata.commit([
      {type: 'robot.put', robot},
      {type: 'robot.put', robot: other},
    ]);
    t.deepEqual(await metadata.robots(), [other, robot]);
    await metadata.commit([{type: 'robot.use', id: 'id-1', at: 7}]);
    await metadata.commit([{type: 'robot.use', id: 'id-1', at: 5}]);
    await metadata.commit([{type: 'robot.use', id: 'unknown', at: 5}]);
    t.deepEqual(await metadata.robots(), [other, {...robot, usedAt: 7}]);
    await metadata.commit([{type: 'robot.delete', id: 'id-2'}]);
    t.deepEqual(await metadata.robots(), [{...robot, usedAt: 7}]);
    await metadata.commit([{type: 'robot.delete', id: 'id-1'}]);
    t.deepEqual(await metadata.robots(), []);
  });

  test('metadata: two databases share nothing', async (t) => {
    const [one, two] = await Promise.all([setUp(t), setUp(t)]);
    const put = manifestPut('{}');
    await one.metadata.commit([put]);
    t.is(await two.metadata.manifest(APP, put.digest), undefined);
    t.deepEqual(await two.metadata.repositories('docker.io', {limit: 10}), []);
  });
}
