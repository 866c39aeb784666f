import type {ExecutionContext, TestFn} from 'ava';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName, type Tag} from '../../src/oci/name.ts';
import {type Edge, edgeOf} from '../../src/oci/referrers.ts';
import {createUploadId} from '../../src/oci/upload.ts';
import type {
  Change,
  Metadata,
  Origin,
  PendingTagChange,
  Precondition,
  RepositoryKey,
  UploadRecord,
} from '../../src/storage/metadata.ts';
import {type MetadataPlace, manifestPut} from './contract-metadata.ts';

const APP: RepositoryKey = {registry: 'docker.io', name: parseName('library/app')};
const OTHER: RepositoryKey = {registry: 'docker.io', name: parseName('library/other')};
const ELSEWHERE: RepositoryKey = {registry: 'ghcr.io', name: parseName('library/app')};
const SUBJECT = digestOf(Buffer.from('subject'));
const EVER = Number.MAX_SAFE_INTEGER;

const named = (name: string): Digest => digestOf(Buffer.from(name));

const blobLink = (digest: Digest, repository = APP, origin: Origin = 'local', at = 1_000): Change => ({
  type: 'blob.link',
  repository,
  digest,
  size: 5,
  origin,
  at,
});

/** The changes that store a blob and link it to a repository. */
const blob = (digest: Digest, repository = APP, origin: Origin = 'local', at = 1_000): Change[] => [
  {type: 'blob.put', digest, size: 5, at},
  blobLink(digest, repository, origin, at),
];

/** A manifest that names these blobs. */
const image = (name: string, blobs: readonly Digest[], repository = APP, origin: Origin = 'local') =>
  manifestPut(name, {
    repository,
    origin,
    references: blobs.map((digest) => ({digest, size: 5, kind: 'blob'})),
  });

const tag = (name: string, digest: Digest, origin: Origin, repository = APP): Change => ({
  type: 'tag.put',
  repository,
  name: name as Tag,
  digest,
  origin,
  at: 1_000,
});

function referring(name: string): {edge: Edge; text: string; digest: Digest} {
  const text = JSON.stringify({
    mediaType: OCI_MANIFEST,
    annotations: {name},
    subject: {mediaType: OCI_MANIFEST, digest: SUBJECT, size: 7},
  });
  const bytes = Buffer.from(text);
  const digest = digestOf(bytes);
  return {edge: edgeOf({digest, mediaType: OCI_MANIFEST, bytes}) as Edge, text, digest};
}

const pendingChange = (name: string, change: Partial<PendingTagChange> = {}): PendingTagChange => ({
  repository: APP,
  subject: SUBJECT,
  digest: named(name),
  change: 'add',
  at: 1_000,
  writtenAt: undefined,
  ...change,
});

/** What every implementation of the metadata port does for pushes and for garbage. `create` makes a new, empty one. */
export function pushContract(test: TestFn, create: (t: ExecutionContext) => Promise<MetadataPlace>): void {
  const setUp = async (t: ExecutionContext) => {
    const place = await create(t);
    const metadata = await place.open();
    t.teardown(() => metadata.close());
    return {place, metadata, commit: (...changes: Change[]) => metadata.commit(changes)};
  };

  const unreferencedIn = async (metadata: Metadata, before = EVER) =>
    (await metadata.unreferencedBlobs(before, 100)).map(({repository, digest}) => [repository.name, digest]);

  const holds = (metadata: Metadata, precondition: Precondition) => metadata.commit([], [precondition]);

  test('pushes: an upload can be put, changed and deleted, and does not create a repository', async (t) => {
    const {metadata, commit} = await setUp(t);
    const upload: UploadRecord = {
      id: createUploadId(),
      repository: APP,
      algorithm: undefined,
      upstream: undefined,
      touchedAt: 1_000,
    };
    t.is(await metadata.upload(upload.id), undefined);
    await commit({type: 'upload.put', upload});
    t.deepEqual(await metadata.upload(upload.id), upload);
    const location = 'https://registry.example/v2/app/blobs/uploads/1?state=x';
    const further: UploadRecord = {
      ...upload,
      algorithm: 'sha512',
      upstream: {location, offset: 123_456_789_012, minChunk: undefined},
      touchedAt: 2_000,
    };
    await commit({type: 'upload.put', upload: further});
    t.deepEqual(await metadata.upload(upload.id), further);
    const limited = {...further, upstream: {location, offset: 0, minChunk: 5_242_880}};
    await commit({type: 'upload.put', upload: limited});
    t.deepEqual(await metadata.upload(upload.id), limited);
    await commit({type: 'upload.delete', id: upload.id}, {type: 'upload.delete', id: createUploadId()});
    t.is(await metadata.upload(upload.id), undefined);
    t.deepEqual(await metadata.repositories('docker.io', {limit: 10}), []);
  });

  test('pushes: the uploads of a holder are counted, up to the limit, until they are deleted', async (t) => {
    const {metadata, commit} = await setUp(t);
    const uploads = ['alice', 'alice', 'bob', undefined].map(
      (holder): UploadRecord => ({
        id: createUploadId(),
        repository: APP,
        algorithm: undefined,
        upstream: undefined,
        ...(holder === undefined ? {} : {holder}),
        touchedAt: 1_000,
      }),
    );
    await commit(...uploads.map((upload): Change => ({type: 'upload.put', upload})));
    const [first] = uploads;
    if (!first) return t.fail();
    t.deepEqual(await metadata.upload(first.id), first);
    t.is(await metadata.uploadsOf('alice', 10), 2);
    t.is(await metadata.uploadsOf('alice', 1), 1);
    t.is(await metadata.uploadsOf('bob', 10), 1);
    t.is(await metadata.uploadsOf('carol', 10), 0);
    await commit({type: 'upload.put', upload: {...first, touchedAt: 2_000}});
    t.is(await metadata.uploadsOf('alice', 10), 2);
    await commit({type: 'upload.delete', id: first.id});
    t.is(await metadata.uploadsOf('alice', 10), 1);
  });

  test('pushes: idle uploads are listed oldest first, up to the limit', async (t) => {
    const {metadata, commit} = await setUp(t);
    const uploads = [3_000, 1_000, 2_000, 4_000].map(
      (touchedAt): UploadRecord => ({
        id: createUploadId(),
        repository: APP,
        algorithm: undefined,
        upstream: undefined,
        touchedAt,
      }),
    );
    await commit(...uploads.map((upload): Change => ({type: 'upload.put', upload})));
    const times = async (before: number, limit: number) =>
      (await metadata.idleUploads(before, limit)).map(({touchedAt}) => touchedAt);
    t.deepEqual(await times(4_000, 10), [1_000, 2_000, 3_000]);
    t.deepEqual(await times(4_000, 2), [1_000, 2_000]);
    t.deepEqual(await times(1_000, 10), []);
  });

  test('pushes: the journal keeps the newest change of each referrer', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [one, two] = [pendingChange('one'), pendingChange('two', {at: 2_000})];
    await commit({type: 'tag-journal.put', entry: two}, {type: 'tag-journal.put', entry: one});
    const elsewhere = pendingChange('one', {repository: OTHER, at: 500});
    const ofOther = pendingChange('one', {subject: named('another subject'), at: 3_000});
    await commit({type: 'tag-journal.put', entry: elsewhere}, {type: 'tag-journal.put', entry: ofOther});
    t.deepEqual(await metadata.tagJournal(APP, SUBJECT), [one, two]);
    t.deepEqual(await metadata.tagJournal(ELSEWHERE, SUBJECT), []);

    const removed = pendingChange('one', {change: 'remove', at: 4_000});
    await commit({type: 'tag-journal.written', entry: one, writtenAt: 1_500});
    await commit({type: 'tag-journal.put', entry: removed});
    t.deepEqual(await metadata.tagJournal(APP, SUBJECT), [two, removed]);
  });

  test('pushes: the journal is read page by page, each entry once, even while it changes', async (t) => {
    const {metadata, commit} = await setUp(t);
    t.deepEqual(await metadata.pendingTagChanges(undefined, 10), []);
    const entries = [APP, OTHER, ELSEWHERE].flatMap((repository) =>
      ['one subject', 'another'].flatMap((subject) =>
        // All have the same time, which does not identify them.
        ['a', 'b', 'c'].map((name) => pendingChange(name, {repository, subject: named(subject)})),
      ),
    );
    await commit(...entries.map((entry): Change => ({type: 'tag-journal.put', entry})));
    const all = await metadata.pendingTagChanges(undefined, 100);
    const keyOf = (entry: PendingTagChange) =>
      `${entry.repository.registry}/${entry.repository.name} ${entry.subject} ${entry.digest}`;
    t.deepEqual(all.map(keyOf).sort(), entries.map(keyOf).sort());
    const subjects = all.map(
      ({repository, subject}) => `${repository.registry}/${repository.name} ${subject}`,
    );
    const changesOfSubject = subjects.filter((subject, index) => subject !== subjects[index - 1]);
    t.is(changesOfSubject.length, 6, 'those of one subject come together');
    for (const limit of [1, 4, 6, 17, 18]) {
      const seen: PendingTagChange[] = [];
      for (let page = await metadata.pendingTagChanges(undefined, limit); page.length > 0; ) {
        t.true(page.length <= limit);
        seen.push(...page);
        page = await metadata.pendingTagChanges(page.at(-1), limit);
      }
      t.deepEqual(seen, all, `pages of ${limit}`);
    }
    const [first, second, third] = all as [PendingTagChange, PendingTagChange, PendingTagChange];
    await commit(
      {type: 'tag-journal.delete', entry: second},
      {type: 'tag-journal.put', entry: {...first, at: 2_000}},
    );
    t.deepEqual(await metadata.pendingTagChanges(second, 1), [third], 'behind one that is gone');
    t.deepEqual(await metadata.pendingTagChanges(first, 1), [third], 'behind one that was put anew');
  });

  test('pushes: a change to a journal entry does not affect the entry that has replaced it', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [before, after] = [pendingChange('one'), pendingChange('one', {at: 2_000})];
    await commit({type: 'tag-journal.put', entry: before}, {type: 'tag-journal.put', entry: after});
    await commit({type: 'tag-journal.written', entry: before, writtenAt: 3_000});
    await commit({type: 'tag-journal.delete', entry: before});
    t.deepEqual(await metadata.tagJournal(APP, SUBJECT), [after]);
    await commit({type: 'tag-journal.written', entry: after, writtenAt: 3_000});
    t.deepEqual(await metadata.tagJournal(APP, SUBJECT), [{...after, writtenAt: 3_000}]);
    await commit({type: 'tag-journal.written', entry: after, writtenAt: undefined});
    t.deepEqual(await metadata.tagJournal(APP, SUBJECT), [after]);
    await commit({type: 'tag-journal.delete', entry: after});
    t.deepEqual(await metadata.pendingTagChanges(undefined, 10), []);
  });

  test('pushes: a lease that was written by a clock far ahead does not count', async (t) => {
    const {metadata} = await setUp(t);
    await metadata.commit([
      {type: 'lease.put', lease: {key: 'tag', owner: 'a process that died', until: 900}},
    ]);
    const free = (at: number) =>
      holds(metadata, {type: 'lease.free', key: 'tag', owner: 'we', at, maxLifeMs: 100});
    t.true(await free(799));
    t.false(await free(800));
    t.false(await free(899));
    t.true(await free(900));
  });

  test('pushes: one of many processes gets a lease, until it is released or lapses', async (t) => {
    const {metadata, commit} = await setUp(t);
    const take = (owner: string, at: number) =>
      metadata.commit(
        [{type: 'lease.put', lease: {key: 'tag', owner, until: at + 100}}],
        [{type: 'lease.free', key: 'tag', owner, at, maxLifeMs: 100}],
      );
    const taken = await Promise.all(Array.from({length: 10}, (_, index) => take(`owner ${index}`, 1_000)));
    t.deepEqual(taken, [true, ...Array.from({length: 9}, () => false)]);
    t.true(await take('owner 0', 1_050), 'its owner may renew it');
    t.false(await take('owner 1', 1_149));
    t.true(await take('owner 1', 1_150), 'it is over');
    t.false(await take('owner 0', 1_160));
    await commit({type: 'lease.delete', key: 'tag', owner: 'owner 0'});
    t.false(await take('owner 0', 1_160), 'somebody else’s lease is not given back');
    await commit({type: 'lease.delete', key: 'tag', owner: 'owner 1'});
    t.true(await take('owner 0', 1_160));
    t.true(
      await holds(metadata, {type: 'lease.free', key: 'another', owner: 'owner 1', at: 0, maxLifeMs: 100}),
    );
  });

  test('pushes: a lease is held by its owner until it is released or taken over', async (t) => {
    const {metadata, commit} = await setUp(t);
    const held = (owner: string) => holds(metadata, {type: 'lease.held', key: 'tag', owner});
    t.false(await held('one'));
    await commit({type: 'lease.put', lease: {key: 'tag', owner: 'one', until: 1}});
    t.true(await held('one'), 'also when it has lapsed');
    t.false(await held('two'));
    await commit({type: 'lease.put', lease: {key: 'tag', owner: 'two', until: 2}});
    t.false(await held('one'));
    await commit({type: 'lease.delete', key: 'tag', owner: 'two'});
    t.false(await held('two'));
  });

  test('pushes: local tags are listed in byte order, page by page', async (t) => {
    const {metadata, commit} = await setUp(t);
    t.deepEqual(await metadata.localTags(APP, {limit: 10}), []);
    const digest = named('x');
    await commit(
      ...['b', 'B', '_', '1', 'a.b', 'a-b'].map((name) => tag(name, digest, 'local')),
      tag('theirs', digest, 'upstream'),
      tag('both', digest, 'upstream'),
      tag('both', digest, 'local'),
      tag('elsewhere', digest, 'local', OTHER),
    );
    const sorted = ['1', 'B', '_', 'a-b', 'a.b', 'b', 'both'] as Tag[];
    t.deepEqual(await metadata.localTags(APP, {limit: 100}), sorted);
    t.deepEqual(await metadata.localTags(APP, {after: 'B', limit: 2}), sorted.slice(2, 4));
    t.deepEqual(await metadata.localTags(APP, {after: 'a', limit: 1}), ['a-b' as Tag]);
  });

  test('pushes: deleting a manifest removes its link, its tags and its entry among the referrers', async (t) => {
    const {metadata, commit} = await setUp(t);
    const {edge, text, digest} = referring('one');
    const put = manifestPut(text, {edge, origin: 'local', mediaType: OCI_MANIFEST});
    const own = {...referring('two').edge, subject: digest};
    const keeps = named('kept');
    await commit(
      put,
      {...put, repository: OTHER},
      tag('v1', digest, 'local'),
      tag('v1', digest, 'upstream'),
      tag('v2', digest, 'upstream'),
      tag('v3', keeps, 'local'),
      tag('v1', digest, 'local', OTHER),
      {
        type: 'referrer-list.put',
        repository: APP,
        subject: digest,
        source: 'api',
        descriptors: [own.descriptor],
        at: 1,
      },
    );
    const version = (await metadata.referrerList(APP, SUBJECT))?.version ?? 0;
    await commit({type: 'manifest.delete', repository: APP, digest});
    t.is(await metadata.manifest(APP, digest), undefined);
    t.is(await metadata.tag(APP, 'v1' as Tag), undefined);
    t.is(await metadata.tag(APP, 'v2' as Tag), undefined);
    t.is((await metadata.tag(APP, 'v3' as Tag))?.digest, keeps);
    t.deepEqual(await metadata.referrers(APP, SUBJECT, {limit: 10}), []);
    t.true(((await metadata.referrerList(APP, SUBJECT))?.version ?? 0) > version);
    t.is((await metadata.referrers(APP, digest, {limit: 10})).length, 1, 'its own referrers stay');
    t.truthy(await metadata.manifest(OTHER, digest));
    t.truthy(await metadata.tag(OTHER, 'v1' as Tag));
    t.is((await metadata.referrers(OTHER, SUBJECT, {limit: 10})).length, 1);
    await commit({type: 'manifest.delete', repository: ELSEWHERE, digest});
    t.deepEqual(await metadata.repositories('ghcr.io', {limit: 10}), []);
  });

  test('pushes: a manifest is collected once no repository is linked to it', async (t) => {
    const {metadata, commit} = await setUp(t);
    const put = image('one', [named('layer')]);
    const {digest} = put;
    const collect: Change = {type: 'manifest.collect', digest};
    await commit(put, {...put, repository: OTHER, origin: 'upstream'});
    await commit({type: 'manifest.delete', repository: APP, digest}, collect);
    t.deepEqual(await metadata.uncollectedManifests(10), []);
    t.truthy(await metadata.storedManifest(digest));
    await commit({type: 'manifest.unlink', repository: OTHER, digest});
    t.deepEqual(await metadata.uncollectedManifests(10), [{digest, size: 3}]);
    t.is((await metadata.references(digest)).length, 1);

    await commit(put);
    t.deepEqual(await metadata.uncollectedManifests(10), [], 'it is back');
    await commit(collect);
    t.truthy(await metadata.manifest(APP, digest));
    await commit({type: 'manifest.delete', repository: APP, digest});
    const link = {...put, type: 'manifest.link'} as const;
    await commit(link);
    t.deepEqual(await metadata.uncollectedManifests(10), []);
    await commit({type: 'manifest.delete', repository: APP, digest}, collect, collect);
    t.deepEqual(await metadata.uncollectedManifests(10), []);
    t.deepEqual(await metadata.references(digest), []);
    await t.throwsAsync(() => commit(link), undefined, 'the bytes are gone');
    t.false(await metadata.commit([link], [{type: 'manifest.stored', digest}]));
    await commit(put);
    t.true(await metadata.commit([link], [{type: 'manifest.stored', digest}]));
    t.is((await metadata.references(digest)).length, 1);
  });

  test('pushes: a link with an expiry time expires, unless it was made permanent since', async (t) => {
    const {metadata, commit} = await setUp(t);
    const lasting = image('lasting', [], APP, 'upstream');
    const passing = image('passing', [], APP, 'upstream');
    const expired = async (before: number) =>
      (await metadata.expiredManifests(before, 10)).map(({digest}) => digest);
    await commit(lasting, {...lasting, expiresAt: 2_000}, {...passing, expiresAt: 2_000});
    t.deepEqual(await metadata.expiredManifests(2_001, 10), [{repository: APP, digest: passing.digest}]);
    t.deepEqual(await expired(2_000), []);
    await commit({...passing, expiresAt: 5_000});
    await commit({...passing, expiresAt: 3_000});
    t.deepEqual(await expired(5_000), [], 'the later time counts');
    t.deepEqual(await expired(5_001), [passing.digest]);
    await commit(passing);
    t.deepEqual(await expired(EVER), []);
    await commit({...passing, repository: OTHER, expiresAt: 1});
    await commit({...passing, type: 'manifest.link', repository: OTHER});
    t.deepEqual(await expired(EVER), []);
    await commit({...passing, repository: OTHER, expiresAt: 1});
    t.deepEqual(await expired(EVER), [], 'a link that lasts keeps lasting');
  });

  test('pushes: expired links are listed in the order in which they expired', async (t) => {
    const {metadata, commit} = await setUp(t);
    await commit(
      ...[3, 1, 2].map((expiresAt) => ({...image(`${expiresAt}`, [], APP, 'upstream'), expiresAt})),
    );
    const digests = (await metadata.expiredManifests(10, 2)).map(({digest}) => digest);
    t.deepEqual(digests, [named('1'), named('2')]);
  });

  test('pushes: a blob is held where it is linked, while its bytes are stored and not being deleted', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    const held = (repository: RepositoryKey) => holds(metadata, {type: 'blob.held', repository, digest});
    t.false(await held(APP));
    await commit(blobLink(digest));
    t.false(await held(APP), 'a link without bytes');
    await commit({type: 'blob.put', digest, size: 5, at: 1});
    t.true(await held(APP));
    t.false(await held(OTHER));
    await commit({type: 'blob.deleting', digest});
    t.like(await metadata.blob(digest), {state: 'deleting'});
    t.false(await held(APP));
    await commit({type: 'blob.delete', digest});
    await commit({type: 'blob.put', digest, size: 5, at: 2});
    t.true(await held(APP), 'it was stored again');
    await commit({type: 'blob.unlink', repository: APP, digest});
    t.false(await held(APP));
    t.is(await metadata.blobLink(APP, digest), undefined);
    t.truthy(await metadata.blob(digest));
  });

  test('pushes: a blob that is being deleted can be neither stored nor linked locally until it is gone', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    const put: Change = {type: 'blob.put', digest, size: 5, at: 2};
    await commit(put);
    await commit({type: 'blob.deleting', digest});
    for (const change of [put, blobLink(digest)]) {
      t.false(await metadata.commit([tag('v1', SUBJECT, 'local'), change]), change.type);
    }
    t.false(await metadata.commit([{type: 'blob.delete', digest}, put]), 'its bytes may still be there');
    t.like(await metadata.blob(digest), {state: 'deleting'});
    t.is(await metadata.blobLink(APP, digest), undefined);
    t.is(await metadata.tag(APP, 'v1' as Tag), undefined, 'nothing of such a commit is made');

    t.true(await metadata.commit([blobLink(digest, APP, 'upstream')]), 'a permission outlives the bytes');
    await commit({type: 'blob.delete', digest});
    t.true(await metadata.commit([put, blobLink(digest)]));
    t.like(await metadata.blob(digest), {state: 'ready'});
  });

  test('pushes: a repository that holds a blob is found only within its registry', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    t.deepEqual(await metadata.blobHolders('docker.io', digest, 9), []);
    await commit(blobLink(digest, OTHER));
    t.deepEqual(await metadata.blobHolders('docker.io', digest, 9), []);
    await commit(...blob(digest, ELSEWHERE));
    t.deepEqual(await metadata.blobHolders('docker.io', digest, 9), [OTHER.name]);
    await commit({type: 'blob.unlink', repository: OTHER, digest});
    t.deepEqual(await metadata.blobHolders('docker.io', digest, 9), []);
    t.deepEqual(await metadata.blobHolders('ghcr.io', digest, 9), [ELSEWHERE.name]);
    await commit({type: 'blob.deleting', digest});
    t.deepEqual(await metadata.blobHolders('ghcr.io', digest, 9), []);
  });

  test('pushes: of the repositories that hold a blob as many are found as are asked for', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    await commit(...blob(digest, APP), blobLink(digest, OTHER), blobLink(digest, ELSEWHERE));
    t.deepEqual((await metadata.blobHolders('docker.io', digest, 9)).toSorted(), [APP.name, OTHER.name]);
    t.is((await metadata.blobHolders('docker.io', digest, 1)).length, 1);
  });

  test('pushes: the bytes of a repository are those of its local links, whatever becomes of each', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [one, two, three] = [named('one'), named('two'), named('three')];
    const bytes = () => metadata.localBlobBytes(APP);
    t.is(await bytes(), 0);
    await commit(blobLink(one), blobLink(two, APP, 'upstream'), blobLink(three, OTHER));
    t.is(await bytes(), 5);
    await commit(blobLink(one), blobLink(one, APP, 'upstream'));
    t.is(await bytes(), 5, 'a link that is there already');
    await commit({...blobLink(two), type: 'blob.link', size: 7} as Change);
    t.is(await bytes(), 12, 'a copy that is kept from now on, with another size');
    await commit({type: 'blob.unlink', repository: APP, digest: one});
    await commit({type: 'blob.unlink', repository: APP, digest: one});
    t.is(await bytes(), 7);
    t.false(await metadata.commit([blobLink(three)], [{type: 'blob.held', repository: APP, digest: one}]));
    t.is(await bytes(), 7, 'a commit that changes nothing');
    await commit({type: 'blob.unlink', repository: APP, digest: two});
    t.is(await bytes(), 0);
    t.is(await metadata.localBlobBytes(OTHER), 5);
  });

  test('pushes: the tags on a manifest are found, of either origin', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [here, elsewhere] = [image('here', []), image('elsewhere', [])];
    await commit(here, elsewhere, tag('v1', here.digest, 'local'), tag('v2', here.digest, 'upstream'));
    await commit(tag('v3', elsewhere.digest, 'local'), tag('v1', here.digest, 'local', OTHER));
    t.deepEqual((await metadata.tagsOn(APP, here.digest)).toSorted(), ['v1', 'v2'] as Tag[]);
    t.deepEqual(await metadata.tagsOn(ELSEWHERE, here.digest), []);
  });

  test('pushes: the many references of an index are read while other work runs, all or none of them', async (t) => {
    const {metadata, commit} = await setUp(t);
    const blobs = Array.from({length: 2500}, (_, index) => named(`layer ${index}`));
    const index = image('index', blobs);
    await commit(index);
    const order: string[] = [];
    setImmediate(() => order.push('other work'));
    const read = await metadata.references(index.digest);
    order.push('all references');
    t.deepEqual(order, ['other work', 'all references']);
    t.deepEqual(
      read.map(({digest}) => digest),
      blobs,
    );
    const reading = metadata.references(index.digest);
    await commit({type: 'manifest.delete', repository: APP, digest: index.digest});
    await commit({type: 'manifest.collect', digest: index.digest});
    t.true([0, blobs.length].includes((await reading).length));
    t.deepEqual(await metadata.references(index.digest), []);
  });

  test('pushes: a local blob is unreferenced until a manifest names it, and again after the last such manifest is gone', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [base, top, config] = [named('base'), named('top'), named('config')];
    await commit(...[base, top, config].flatMap((digest) => blob(digest)));
    await commit(...blob(base, OTHER), ...blob(named('copy'), APP, 'upstream'));
    t.is((await unreferencedIn(metadata)).length, 4);
    const [one, two] = [image('one', [base, config]), image('two', [base, top])];
    await commit(one, two);
    t.deepEqual(
      await unreferencedIn(metadata),
      [[OTHER.name, base]],
      'what one repository names is not another’s',
    );
    await commit({type: 'manifest.delete', repository: APP, digest: one.digest});
    t.deepEqual((await unreferencedIn(metadata)).sort(), [
      [APP.name, config],
      [OTHER.name, base],
    ]);
    await commit(one);
    await commit({...one, type: 'manifest.link', repository: OTHER});
    t.deepEqual(await unreferencedIn(metadata), []);
    await commit({type: 'manifest.delete', repository: APP, digest: one.digest});
    await commit({type: 'manifest.delete', repository: APP, digest: two.digest});
    t.is((await unreferencedIn(metadata)).length, 3);
  });

  test('pushes: unreferenced blobs are listed with their size, oldest link first, after the grace period', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digests = [3_000, 1_000, 2_000].map((at) => ({at, digest: named(`${at}`)}));
    await commit(...digests.flatMap(({digest, at}) => blob(digest, APP, 'local', at)));
    t.deepEqual(await metadata.unreferencedBlobs(3_000, 10), [
      {repository: APP, digest: named('1000'), size: 5},
      {repository: APP, digest: named('2000'), size: 5},
    ]);
    t.is((await metadata.unreferencedBlobs(EVER, 2)).length, 2);
    await commit(blobLink(named('1000'), APP, 'local', 4_000));
    t.deepEqual(await unreferencedIn(metadata, 3_000), [[APP.name, named('2000')]], 'it was relied on again');
  });

  test('pushes: a blob that is pushed after the manifest that names it is not unreferenced', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [early, late] = [named('early'), named('late')];
    await commit(blobLink(early, APP, 'upstream'), image('one', [early, late], APP, 'upstream'));
    await commit(...blob(late), ...blob(early));
    t.deepEqual(await unreferencedIn(metadata), []);
    await commit({type: 'manifest.unlink', repository: APP, digest: named('one')});
    t.is((await unreferencedIn(metadata)).length, 2);
  });

  test('pushes: an unreferenced blob is unlinked only if it is still unreferenced', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    const isUnreferenced = (before: number, repository = APP) =>
      holds(metadata, {type: 'blob.unreferenced', repository, digest, before});
    t.false(await isUnreferenced(EVER));
    await commit(...blob(digest));
    t.true(await isUnreferenced(1_001));
    t.false(await isUnreferenced(1_000), 'its time of grace is not over');
    t.false(await isUnreferenced(EVER, OTHER));
    const put = image('one', [digest]);
    await commit({...put, repository: OTHER});
    t.true(await isUnreferenced(EVER), 'another repository’s manifest is no reason');
    await commit(put);
    t.false(await isUnreferenced(EVER));
    await commit({type: 'manifest.delete', repository: APP, digest: put.digest});
    t.true(await isUnreferenced(EVER));
  });

  test("pushes: of a manifest's commit and a simultaneous collection, one sees the other", async (t) => {
    const {metadata, commit} = await setUp(t);
    const digests = Array.from({length: 20}, (_, index) => named(`${index}`));
    await commit(...digests.flatMap((digest) => blob(digest)));
    await Promise.all(
      digests.map(async (digest, index) => {
        const put = () =>
          metadata.commit(
            [image(`image ${index}`, [digest])],
            [{type: 'blob.held', repository: APP, digest}],
          );
        const collect = () =>
          metadata.commit(
            [{type: 'blob.unlink', repository: APP, digest}],
            [{type: 'blob.unreferenced', repository: APP, digest, before: EVER}],
          );
        const both = index % 2 === 0 ? [put(), collect()] : [collect(), put()];
        t.deepEqual(await Promise.all(both), [true, false]);
      }),
    );
  });

  test('pushes: a blob is evictable while no repository has a local link to it', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    const evictable = () => holds(metadata, {type: 'blob.evictable', digest});
    t.true(await evictable());
    await commit({type: 'blob.put', digest, size: 5, at: 1}, blobLink(digest, APP, 'upstream'));
    t.true(await evictable());
    await commit(blobLink(digest, OTHER, 'local'));
    t.false(await evictable());
    await commit({type: 'blob.unlink', repository: OTHER, digest});
    t.true(await evictable());
  });

  test("pushes: the blob store's marker is stored, and so is whether the store has blobs", async (t) => {
    const {metadata, commit} = await setUp(t);
    t.deepEqual(await metadata.blobStore(), {id: undefined, hasBlobs: false});
    await commit(
      {type: 'blob-store.put', id: 'one'},
      {type: 'blob.put', digest: named('layer'), size: 5, at: 1},
    );
    t.deepEqual(await metadata.blobStore(), {id: 'one', hasBlobs: true});
    await commit({type: 'blob-store.put', id: 'two'}, {type: 'blob.delete', digest: named('layer')});
    t.deepEqual(await metadata.blobStore(), {id: 'two', hasBlobs: false});
  });

  test('pushes: a blob that no repository is linked to is found once it is old enough', async (t) => {
    const {metadata, commit} = await setUp(t);
    const digest = named('layer');
    const unlinked = () => holds(metadata, {type: 'blob.unlinked', digest});
    t.true(await unlinked());
    await commit({type: 'blob.put', digest, size: 5, at: 1_000});
    t.deepEqual(await metadata.uncollectedBlobs(1_000, 10), []);
    const record = {digest, size: 5, state: 'ready', storedAt: 1_000} as const;
    t.deepEqual(await metadata.uncollectedBlobs(1_001, 10), [record]);
    await commit(blobLink(digest, APP, 'upstream'), blobLink(digest, OTHER));
    t.false(await unlinked());
    t.deepEqual(await metadata.uncollectedBlobs(EVER, 10), []);
    await commit({type: 'blob.put', digest, size: 5, at: 2_000});
    await commit({type: 'blob.unlink', repository: APP, digest});
    t.deepEqual(await metadata.uncollectedBlobs(EVER, 10), []);
    await commit({type: 'blob.unlink', repository: OTHER, digest});
    t.true(await unlinked());
    t.deepEqual(await metadata.uncollectedBlobs(EVER, 10), [{...record, storedAt: 2_000}]);
    await commit({type: 'blob.delete', digest});
    t.deepEqual(await metadata.uncollectedBlobs(EVER, 10), []);
  });

  test('pushes: an unfinished deletion is found whatever the age and links of the blob', async (t) => {
    const {metadata, commit} = await setUp(t);
    const [one, two] = [named('one'), named('two')];
    await commit({type: 'blob.put', digest: one, size: 5, at: 1_000}, ...blob(two));
    await commit({type: 'blob.deleting', digest: one}, {type: 'blob.deleting', digest: two});
    const found = await metadata.uncollectedBlobs(0, 10);
    t.deepEqual(found.map(({digest}) => digest).sort(), [one, two].sort());
    t.true(found.every(({state}) => state === 'deleting'));
    t.is((await metadata.uncollectedBlobs(EVER, 10)).length, 2, 'each comes once');
    t.is((await metadata.uncollectedBlobs(EVER, 1)).length, 1);
    await commit({type: 'blob.delete', digest: one});
    await commit({type: 'blob.put', digest: one, size: 5, at: 1_000});
    t.is((await metadata.uncollectedBlobs(0, 10)).length, 1);
  });

  test('pushes: everything is still there after closing and reopening', async (t) => {
    const {place, metadata, commit} = await setUp(t);
    const upload: UploadRecord = {
      id: createUploadId(),
      repository: APP,
      algorithm: 'sha256',
      upstream: {location: 'https://registry.example/upload', offset: 5, minChunk: 7},
      touchedAt: 1,
    };
    const passing = {...image('passing', [], APP, 'upstream'), expiresAt: 1};
    const put = image('gone', []);
    await commit(
      {type: 'upload.put', upload},
      {type: 'tag-journal.put', entry: pendingChange('one')},
      passing,
      put,
    );
    await commit({type: 'manifest.delete', repository: APP, digest: put.digest});
    await commit(...blob(named('loose')), {type: 'blob.put', digest: named('unlinked'), size: 5, at: 1});
    await commit(
      {type: 'lease.put', lease: {key: 'tag', owner: 'me', until: 100}},
      tag('v1', named('x'), 'local'),
    );
    const reads = async (from: Metadata) => [
      await from.upload(upload.id),
      await from.pendingTagChanges(undefined, 10),
      await from.expiredManifests(EVER, 10),
      await from.uncollectedManifests(10),
      await from.unreferencedBlobs(EVER, 10),
      await from.uncollectedBlobs(EVER, 10),
      await from.localTags(APP, {limit: 10}),
    ];
    const before = await reads(metadata);
    t.true(before.every((value) => value && (!Array.isArray(value) || value.length === 1)));
    await metadata.close();
    const reopened = await place.open();
    t.teardown(() => reopened.close());
    t.deepEqual(await reads(reopened), before);
    t.false(await holds(reopened, {type: 'lease.free', key: 'tag', owner: 'you', at: 99, maxLifeMs: 100}));
  });
}
