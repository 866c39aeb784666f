import type {ExecutionContext, TestFn} from 'ava';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {parseName, type Tag} from '../../src/oci/name.ts';
import {fallbackTag} from '../../src/oci/referrers.ts';
import type {Change, CopiedBlobLink, Metadata, RepositoryKey} from '../../src/storage/metadata.ts';
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

type ManifestPut = ReturnType<typeof manifestPut>;

/** A manifest that refers to a subject. */
function referrerPut(subject: Digest, text: string, origin: 'local' | 'upstream' = 'upstream'): ManifestPut {
  const put = manifestPut(text, {origin});
  const {digest, mediaType, bytes} = put;
  return {...put, edge: {subject, descriptor: {digest, mediaType, size: bytes.byteLength}}};
}

const listPut = (subject: Digest, named: readonly Digest[], at = 2_000): Change => ({
  type: 'referrer-list.put',
  repository: APP,
  subject,
  source: 'api',
  descriptors: named.map((digest) => ({digest, mediaType: 'text/any', size: 1})),
  at,
});

const evictAll = (root: Digest, members: readonly Digest[]): Change[] =>
  members.map((digest) => ({type: 'manifest.evict', repository: APP, root, digest, at: 9_000}));

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
      (after: Awaited<ReturnType<Metadata['allReferences']>>[number]['cursor'] | undefined, limit) =>
        metadata.allReferences(after, limit),
      ({cursor}) => cursor,
    );
    t.deepEqual(
      rows.map(({cursor, ...row}) => row),
      puts.flatMap(({digest: manifest}) =>
        references.map(({digest: child, kind}) => ({
          manifest,
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

  test('eviction: an image goes with its tag and its children; what was asked for its blobs and its tags stays', async (t) => {
    const metadata = await setUp(t);
    const layer = blob('layer');
    const child = manifestPut('child', {references: [{digest: layer, size: 5, kind: 'blob'}]});
    const index = manifestPut('index', {references: [{digest: child.digest, size: 5, kind: 'manifest'}]});
    await metadata.commit([
      child,
      index,
      tagPut(index.digest),
      {type: 'tag-list.put', repository: APP, names: ['v1'], at: 1},
      {type: 'blob.link', repository: APP, digest: layer, size: 5, origin: 'upstream', at: 1},
    ]);
    await metadata.commit(evictAll(index.digest, [index.digest, child.digest]));
    t.deepEqual(await linksOf(metadata), []);
    t.is(await metadata.tag(APP, V1), undefined);
    t.is(await metadata.storedManifest(child.digest), undefined);
    t.deepEqual(await metadata.references(child.digest), []);
    t.deepEqual(await metadata.tagList(APP), {names: ['v1'], checkedAt: 1});
    t.like(await metadata.blobLink(APP, layer), {size: 5, origin: 'upstream'});
    t.deepEqual(await metadata.uncollectedManifests(10), []);
  });

  test('eviction: an image that an index names, and a referrer whose subject is here, lose only their names', async (t) => {
    const metadata = await setUp(t);
    const child = manifestPut('child');
    const index = manifestPut('index', {references: [{digest: child.digest, size: 5, kind: 'manifest'}]});
    const sbom = referrerPut(index.digest, 'sbom');
    const names = {child: 'amd64' as Tag, sbom: 'sbom' as Tag};
    await metadata.commit([
      child,
      index,
      sbom,
      tagPut(index.digest),
      tagPut(child.digest, {name: names.child}),
      tagPut(sbom.digest, {name: names.sbom}),
    ]);
    for (const {digest} of [child, sbom]) {
      await metadata.commit(evictAll(digest, [digest]));
      t.truthy(await metadata.manifest(APP, digest));
    }
    t.is(await metadata.tag(APP, names.child), undefined);
    t.is(await metadata.tag(APP, names.sbom), undefined);
    t.is((await metadata.referrers(APP, index.digest, {limit: 9})).length, 1);
    await metadata.commit(evictAll(index.digest, [index.digest, child.digest, sbom.digest]));
    t.deepEqual(await linksOf(metadata), []);
  });

  test('eviction: manifests that tags attach to each other do not keep each other', async (t) => {
    const metadata = await setUp(t);
    const subject = manifestPut('subject');
    const list = manifestPut('list', {references: [{digest: subject.digest, size: 7, kind: 'manifest'}]});
    await metadata.commit([subject, list, tagPut(list.digest, {name: fallbackTag(subject.digest)})]);
    await metadata.commit(evictAll(subject.digest, [subject.digest, list.digest]));
    t.deepEqual(await linksOf(metadata), []);
  });

  test('eviction: an index that names a manifest again and again hides no other one that needs it', async (t) => {
    const metadata = await setUp(t);
    const subject = manifestPut('subject');
    const named = {digest: subject.digest, size: 7, kind: 'manifest' as const};
    const index = manifestPut('index', {references: [named]});
    const list = Array.from({length: 50}, (_, number) => manifestPut(`list ${number}`)).find(
      ({digest}) => digest < index.digest,
    );
    if (!list) return t.fail('no list is found before the index');
    const references = Array.from({length: 150}, () => named);
    await metadata.commit([
      subject,
      {...list, references},
      index,
      tagPut(index.digest),
      tagPut(list.digest, {name: fallbackTag(subject.digest)}),
    ]);
    await metadata.commit(evictAll(subject.digest, [subject.digest, list.digest]));
    t.truthy(await metadata.manifest(APP, subject.digest));
  });

  test('eviction: the list of referrers of an evicted subject is unknown, and keeps those that were pushed here', async (t) => {
    const metadata = await setUp(t);
    const subject = manifestPut('subject');
    const [pulled, pushed] = [
      referrerPut(subject.digest, 'pulled'),
      referrerPut(subject.digest, 'pushed', 'local'),
    ];
    await metadata.commit([
      subject,
      tagPut(subject.digest),
      pulled,
      pushed,
      listPut(subject.digest, [pulled.digest, pushed.digest, blob('not pulled')]),
    ]);
    const before = await metadata.referrerList(APP, subject.digest);
    t.is((await metadata.referrers(APP, subject.digest, {limit: 9})).length, 3);
    await metadata.commit(evictAll(subject.digest, [subject.digest, pulled.digest, pushed.digest]));
    const rows = await metadata.referrers(APP, subject.digest, {limit: 9});
    t.deepEqual(
      rows.map(({digest, listed}) => ({digest, listed})),
      [{digest: pushed.digest, listed: false}],
    );
    const after = await metadata.referrerList(APP, subject.digest);
    t.like(after, {checkedAt: undefined, source: undefined});
    t.true((after?.version ?? 0) > (before?.version ?? 0));
    t.is(after?.amended, after?.version);
  });

  test('eviction: a list that begins anew is not taken for the earlier one, nor goes on in its middle', async (t) => {
    const metadata = await setUp(t);
    const [subject, other] = [manifestPut('subject'), manifestPut('other')];
    await metadata.commit([subject, listPut(subject.digest, ['one', 'two', 'three'].map(blob))]);
    await metadata.commit([listPut(subject.digest, ['one', 'two', 'three', 'four'].map(blob), 3_000)]);
    const before = await metadata.referrerList(APP, subject.digest);
    const last = (await metadata.referrers(APP, subject.digest, {limit: 9})).at(-1)?.seq ?? 0;
    await metadata.commit(evictAll(subject.digest, [subject.digest]));
    t.is(await metadata.referrerList(APP, subject.digest), undefined);
    await metadata.commit([subject, listPut(subject.digest, [blob('five')], 4_000), other]);
    await metadata.commit([listPut(other.digest, [], 4_000)]);
    const after = await metadata.referrerList(APP, subject.digest);
    t.true((after?.version ?? 0) > (before?.version ?? 0));
    t.is(after?.amended, after?.version);
    const rows = await metadata.referrers(APP, subject.digest, {after: last, limit: 9});
    t.deepEqual(
      rows.map(({digest}) => digest),
      [blob('five')],
    );
    await metadata.commit([listPut(subject.digest, ['five', 'six'].map(blob), 5_000)]);
    t.is((await metadata.referrerList(APP, subject.digest))?.amended, after?.version, 'only added to');
  });

  test('eviction: a referrer that is pulled again is on the list again, which is unknown meanwhile', async (t) => {
    const metadata = await setUp(t);
    const subject = blob('not pulled');
    const sbom = referrerPut(subject, 'sbom');
    await metadata.commit([sbom, listPut(subject, [sbom.digest, blob('other')])]);
    await metadata.commit(evictAll(sbom.digest, [sbom.digest]));
    t.is((await metadata.referrerList(APP, subject))?.checkedAt, undefined);
    await metadata.commit([sbom]);
    t.is((await metadata.referrers(APP, subject, {limit: 9})).length, 1);
    t.is((await metadata.referrerList(APP, subject))?.checkedAt, undefined);
  });

  test('eviction: a link that comes back has the uses that it had, once', async (t) => {
    const metadata = await setUp(t);
    const one = manifestPut('one');
    const usesAfter = async (...changes: Change[]) => {
      await metadata.commit(changes);
      return (await linksOf(metadata))[0]?.uses;
    };
    t.is(await usesAfter(one, used(one.digest, 5), used(one.digest, 6)), 2);
    await metadata.commit(evictAll(one.digest, [one.digest]));
    t.is(await usesAfter({...one, repository: OTHER}), 0, 'another repository has uses of its own');
    t.is(await usesAfter({type: 'manifest.delete', repository: OTHER, digest: one.digest}, one), 2);
    t.is(await usesAfter({type: 'manifest.delete', repository: APP, digest: one.digest}, one), 0);
  });

  test('eviction: about as many evicted links are remembered as there are links, the newest ones', async (t) => {
    const metadata = await setUp(t);
    const puts = Array.from({length: 512}, (_, index) => manifestPut(`${index}`));
    const [oldest, newest] = [puts.at(0), puts.at(-1)] as [ManifestPut, ManifestPut];
    await metadata.commit(puts.flatMap((put) => [put, used(put.digest, 5)]));
    await metadata.commit(puts.flatMap(({digest}) => evictAll(digest, [digest])));
    await metadata.commit([oldest, newest]);
    t.deepEqual(
      (await linksOf(metadata)).map(({uses}) => uses),
      [0, 0],
      'while there is no link, none is remembered beyond the last count',
    );
    await metadata.commit([used(oldest.digest, 6), ...evictAll(oldest.digest, [oldest.digest]), oldest]);
    t.is((await linksOf(metadata)).at(-1)?.uses, 1);
  });

  test('eviction: a link to a copy that is stored, or to what was pushed here, is not forgotten', async (t) => {
    const metadata = await setUp(t);
    const names = ['stored', 'pushed', 'late', 'gone'];
    await metadata.commit([
      ...names.map(
        (name, place): Change => ({
          type: 'blob.link',
          repository: APP,
          digest: blob(name),
          size: 1,
          origin: name === 'pushed' ? 'local' : 'upstream',
          at: name === 'late' ? 100 : place,
        }),
      ),
      {type: 'blob.put', digest: blob('stored'), size: 1, at: 1},
    ]);
    const walk = () =>
      allPages(
        (after: CopiedBlobLink['cursor'] | undefined, limit) => metadata.copiedBlobLinks(after, limit),
        ({cursor}) => cursor,
      );
    t.deepEqual(
      (await walk()).map(({digest, linkedAt, isStored}) => ({digest, linkedAt, isStored})),
      [
        {digest: blob('stored'), linkedAt: 0, isStored: true},
        {digest: blob('gone'), linkedAt: 3, isStored: false},
        {digest: blob('late'), linkedAt: 100, isStored: false},
      ],
    );
    await metadata.commit(
      names.map((name) => ({
        type: 'blob.forget',
        repository: APP,
        digest: blob(name),
        linkedBefore: 100,
        namedBefore: 0,
      })),
    );
    const links = await Promise.all(names.map((name) => metadata.blobLink(APP, blob(name))));
    t.deepEqual(
      names.filter((_, place) => links[place]),
      ['stored', 'pushed', 'late'],
    );
  });
}
