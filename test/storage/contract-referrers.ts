import type {ExecutionContext, TestFn} from 'ava';
import type {Descriptor} from '../../src/oci/descriptor.ts';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName, type Tag} from '../../src/oci/name.ts';
import {type Edge, edgeOf} from '../../src/oci/referrers.ts';
import type {
  Change,
  LinkedManifest,
  ManifestCursor,
  Metadata,
  ReferrerCursor,
  ReferrerPageQuery,
  ReferrerRow,
  RepositoryKey,
} from '../../src/storage/metadata.ts';
import {type MetadataPlace, manifestPut} from './contract-metadata.ts';

const APP: RepositoryKey = {registry: 'docker.io', name: parseName('library/app')};
const OTHER: RepositoryKey = {registry: 'docker.io', name: parseName('library/other')};
const SUBJECT = digestOf(Buffer.from('subject'));
const SBOM = 'application/vnd.example.sbom';
const SIGNATURE = 'application/vnd.example.signature';

/** A manifest unlike any other, with its edge. */
function referring(name: string, artifactType = SBOM, subject = SUBJECT) {
  const body = {
    mediaType: OCI_MANIFEST,
    artifactType,
    annotations: {name},
    subject: {mediaType: OCI_MANIFEST, digest: subject, size: 7},
  };
  const text = JSON.stringify(body);
  const bytes = Buffer.from(text);
  const edge = edgeOf({digest: digestOf(bytes), mediaType: OCI_MANIFEST, bytes}) as Edge;
  return {edge, ...edge, digest: edge.descriptor.digest, put: manifestPut(text, {edge})};
}

/** The descriptor with which an upstream lists a manifest that is not stored here. */
const described = (name: string, change: Partial<Descriptor> = {}): Descriptor => ({
  mediaType: OCI_MANIFEST,
  digest: digestOf(Buffer.from(name)),
  size: name.length,
  artifactType: SBOM,
  annotations: {name},
  ...change,
});

const answer = (
  descriptors: readonly Descriptor[],
  change: Partial<Extract<Change, {type: 'referrer-list.put'}>> = {},
): Change => ({
  type: 'referrer-list.put',
  repository: APP,
  subject: SUBJECT,
  source: 'api',
  descriptors,
  at: 5_000,
  ...change,
});

/** What every implementation of the metadata port does with referrers. `create` makes a new, empty one. */
export function referrerContract(
  test: TestFn,
  create: (t: ExecutionContext) => Promise<MetadataPlace>,
): void {
  const setUp = async (t: ExecutionContext) => {
    const place = await create(t);
    const metadata = await place.open();
    t.teardown(() => metadata.close());
    return {
      place,
      metadata,
      commit: (...changes: Change[]) => metadata.commit(changes),
      list: (subject = SUBJECT, repository = APP) => metadata.referrerList(repository, subject),
      rows: async (page: Partial<ReferrerPageQuery> = {}, repository = APP, subject = SUBJECT) => {
        const some = {limit: 1_000, ...page};
        const rows = await metadata.referrers(repository, subject, some);
        const {count, last, text} = await metadata.referrerText(repository, subject, some);
        t.deepEqual({count, last}, {count: rows.length, last: rows.at(-1)?.seq});
        t.is(text?.toString(), rows.map(({descriptor}) => descriptor).join(','));
        const unlisted = rows.filter(({listed}) => !listed).map(({digest}) => digest);
        if (!page.types && page.after === undefined) {
          t.deepEqual(await metadata.unlistedReferrers(repository, subject, some.limit), unlisted);
        }
        return rows;
      },
    };
  };

  type Rows = Awaited<ReturnType<Metadata['referrers']>>;
  const digests = (rows: Rows): Digest[] => rows.map(({digest}) => digest);

  test('referrers: nothing is known at first', async (t) => {
    const {metadata, list, rows} = await setUp(t);
    t.is(await list(), undefined);
    t.deepEqual(await rows(), []);
    t.deepEqual(await rows({types: [SBOM]}), []);
    t.deepEqual(await metadata.referrerSubjects(APP, 'sha256:'), []);
    t.deepEqual(await metadata.manifests(undefined, 10), []);
  });

  test('referrers: when an answer names a digest twice, the first descriptor counts', async (t) => {
    const {commit, rows} = await setUp(t);
    await commit(answer([described('one'), described('two'), described('one', {artifactType: SIGNATURE})]));
    t.deepEqual(
      (await rows()).map(({artifactType}) => artifactType),
      [SBOM, SBOM],
    );
  });

  test('referrers: an incomplete answer changes rows, but not the time and the source of the last complete one', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const partial = (descriptors: readonly Descriptor[], except: readonly Digest[] = []) =>
      commit(answer(descriptors, {source: 'tag', at: undefined, except}));
    await partial([described('one')]);
    t.like(await list(), {checkedAt: undefined, source: undefined});
    t.deepEqual(digests(await rows()), [described('one').digest]);

    await commit(answer([described('one'), described('two'), described('three')]));
    await partial([described('three'), described('four')], [described('one').digest]);
    t.like(await list(), {checkedAt: 5_000, source: 'api'});
    t.deepEqual(
      digests(await rows()),
      ['one', 'three', 'four'].map((name) => described(name).digest),
    );
  });

  test('referrers: as text, a large descriptor among several has to be read alone', async (t) => {
    const {metadata, commit} = await setUp(t);
    const large = {annotations: {filling: 'x'.repeat(70_000)}};
    await commit(answer([described('one'), described('two', large), described('three')]));
    const read = (page: ReferrerPageQuery) => metadata.referrerText(APP, SUBJECT, page);
    const many = [SBOM, ...Array.from({length: 20}, (_, index) => `absent/${index}`)];
    for (const types of [undefined, [SBOM], many]) {
      const some = types ? {types} : {};
      t.deepEqual(await read({limit: 3, ...some}), {count: 3, last: 3, text: undefined});
      t.deepEqual(await read({limit: 2, after: 1, ...some}), {count: 2, last: 3, text: undefined});
      const alone = await read({limit: 1, after: 1, ...some});
      t.true((alone.text?.length ?? 0) > 70_000);
      t.is((await read({limit: 9, after: 2, ...some})).count, 1);
      t.truthy((await read({limit: 9, after: 2, ...some})).text);
    }
  });

  test('referrers: a manifest is put with its edge, in its repository only', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const one = referring('one');
    await commit(one.put);
    t.deepEqual(await rows(), [
      {
        seq: 1,
        digest: one.digest,
        artifactType: SBOM,
        descriptor: JSON.stringify(one.descriptor),
        source: 'content',
        listed: false,
      },
    ]);
    t.deepEqual(await list(), {version: 1, amended: 0, checkedAt: undefined, source: undefined});
    t.deepEqual(await rows({}, OTHER), []);
    t.is(await list(SUBJECT, OTHER), undefined);
  });

  test('referrers: a missing artifact type is undefined, in rows of each source', async (t) => {
    const {commit, rows} = await setUp(t);
    const one = referring('one', '');
    const {artifactType: _, ...two} = described('two');
    await commit(one.put, answer([two]));
    t.deepEqual(
      (await rows()).map(({artifactType}) => artifactType),
      [undefined, undefined],
    );
  });

  test('referrers: linking a manifest to another repository adds its edge there', async (t) => {
    const {commit, rows} = await setUp(t);
    const {put, edge, digest} = referring('one');
    const link = {
      type: 'manifest.link',
      repository: OTHER,
      digest,
      mediaType: OCI_MANIFEST,
      edge,
      origin: 'upstream',
      at: 1,
    } as const;
    await commit(put);
    await commit(link);
    t.deepEqual(await rows({}, OTHER), await rows());
  });

  test('referrers: the same commit again changes nothing', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const {put, edge} = referring('one');
    await commit(put);
    const before = [await list(), await rows()];
    await commit({...put, at: 9_000}, {type: 'referrer.put', repository: APP, edge, at: 9_000});
    t.deepEqual([await list(), await rows()], before);
  });

  test('referrers: a pushed manifest that keeps its media type keeps the edge that belongs to it', async (t) => {
    const {commit, rows} = await setUp(t);
    const {put, edge} = referring('one');
    await commit({...put, origin: 'local'});
    const before = await rows();
    const odd = {...edge, descriptor: {...edge.descriptor, mediaType: 'other/type'}};
    await commit({...put, mediaType: 'other/type', edge: odd});
    t.deepEqual(await rows(), before);
  });

  test('referrers: manifest and edge are one commit', async (t) => {
    const {metadata, commit, list, rows} = await setUp(t);
    const {put} = referring('one');
    const missing = digestOf(Buffer.from('bytes that are not here'));
    const fails = {
      type: 'manifest.link',
      repository: APP,
      digest: missing,
      mediaType: OCI_MANIFEST,
      edge: undefined,
      origin: 'upstream',
      at: 1,
    } as const;
    await t.throwsAsync(() => commit(put, fails));
    t.false(await metadata.commit([put], [{type: 'manifest.linked', repository: APP, digest: missing}]));
    t.deepEqual([await list(), await rows()], [undefined, []]);
  });

  test('referrers: an answer of the upstream is kept as it is, in its order', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const named = ['c', 'a', 'b'].map((name) => described(name));
    await commit(answer(named));
    t.deepEqual(
      await rows(),
      named.map((descriptor, index) => ({
        seq: index + 1,
        digest: descriptor.digest,
        artifactType: SBOM,
        descriptor: JSON.stringify(descriptor),
        source: 'api',
        listed: true,
      })),
    );
    t.deepEqual(await list(), {version: 1, amended: 0, checkedAt: 5_000, source: 'api'});
  });

  test('referrers: an answer that names a referrer twice has the effect of one that names it once', async (t) => {
    const {commit, rows} = await setUp(t);
    const [a, b] = [described('a'), described('b')];
    await commit(answer([a, b, a]));
    t.deepEqual(digests(await rows()), [a.digest, b.digest]);
    await commit(answer([b, b, a, described('c')], {at: 6_000}));
    t.deepEqual(
      (await rows()).map(({seq}) => seq),
      [1, 2, 3],
    );
  });

  test('referrers: an empty answer is known as an empty list', async (t) => {
    const {metadata, commit, list, rows} = await setUp(t);
    await commit(answer([], {source: 'tag'}));
    t.deepEqual(await list(), {version: 1, amended: 0, checkedAt: 5_000, source: 'tag'});
    t.deepEqual(await rows(), []);
    t.deepEqual(await metadata.referrerSubjects(APP, SUBJECT), [SUBJECT]);
  });

  test('referrers: what a later answer names keeps its place, what is new is appended, the rest is removed', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => described(name)) as [
      Descriptor,
      Descriptor,
      Descriptor,
      Descriptor,
    ];
    await commit(answer([a, b, c]));
    await commit(answer([d, c, a], {at: 6_000}));
    t.deepEqual(
      (await rows()).map(({seq, digest}) => ({seq, digest})),
      [
        {seq: 1, digest: a.digest},
        {seq: 3, digest: c.digest},
        {seq: 4, digest: d.digest},
      ],
    );
    t.like(await list(), {checkedAt: 6_000});
    await commit(answer([b], {at: 7_000}));
    t.like(await rows(), [{seq: 5, digest: b.digest}], 'no place is given twice');
  });

  test('referrers: a later answer’s descriptor and source replace an earlier one’s', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const better = described('a', {artifactType: SIGNATURE, annotations: {more: 'of them'}});
    await commit(answer([described('a'), described('b')], {source: 'tag'}));
    await commit(answer([better, described('b')]));
    t.like(await rows(), [
      {seq: 1, artifactType: SIGNATURE, descriptor: JSON.stringify(better), source: 'api', listed: true},
      {seq: 2, descriptor: JSON.stringify(described('b')), source: 'api', listed: true},
    ]);
    t.deepEqual(digests(await rows({types: [SIGNATURE]})), [better.digest]);
    t.like(await list(), {source: 'api'});
  });

  test('referrers: a referrer whose manifest is here keeps its descriptor, whether the answer names it or not', async (t) => {
    const {commit, rows} = await setUp(t);
    const one = referring('one');
    await commit(one.put);
    const content = {seq: 1, descriptor: JSON.stringify(one.descriptor), source: 'content'} as const;
    await commit(answer([described('two'), {...one.descriptor, artifactType: 'wrong/type'}]));
    t.like(await rows(), [
      {...content, listed: true, artifactType: SBOM},
      {seq: 2, source: 'api', listed: true},
    ]);
    await commit(answer([], {at: 6_000}));
    t.like(await rows(), [{...content, listed: false}]);
    t.is((await rows()).length, 1);
  });

  test('referrers: a manifest that is stored later replaces the upstream’s descriptor, in its place', async (t) => {
    const {commit, list, rows} = await setUp(t);
    const one = referring('one');
    await commit(answer([{...one.descriptor, artifactType: 'wrong/type'}, described('two')]));
    await commit(one.put);
    t.like(await rows(), [
      {
        seq: 1,
        artifactType: SBOM,
        descriptor: JSON.stringify(one.descriptor),
        source: 'content',
        listed: true,
      },
      {seq: 2},
    ]);
    t.deepEqual(digests(await rows({types: ['wrong/type']})), []);
    t.deepEqual(await list(), {version: 2, amended: 2, checkedAt: 5_000, source: 'api'});
  });

  test('referrers: the version rises with every change of the subject’s own rows, and with nothing else', async (t) => {
    const {commit, list} = await setUp(t);
    const [one, elsewhere] = [referring('one'), referring('two', SBOM, digestOf(Buffer.from('elsewhere')))];
    let last = 0;
    const grows = async (what: string, ...changes: Change[]) => {
      await commit(...changes);
      const {version = 0} = (await list()) ?? {};
      t.true(version > last, what);
      last = version;
    };
    await grows('a first edge', one.put);
    await grows('an answer', answer([described('a')]));
    await grows('the same answer, later', answer([described('a')], {at: 6_000}));
    await grows('another descriptor', answer([described('a', {size: 9})], {at: 6_000}));
    await grows('a deletion', {
      type: 'referrer.delete',
      repository: APP,
      subject: SUBJECT,
      digest: described('a').digest,
    });
    await grows('an unlinking', {type: 'manifest.unlink', repository: APP, digest: one.digest});

    const {digest} = one;
    await commit(
      {type: 'referrer.delete', repository: APP, subject: SUBJECT, digest},
      {type: 'manifest.unlink', repository: APP, digest},
      elsewhere.put,
      {...one.put, repository: OTHER},
      manifestPut('no edge'),
    );
    t.is((await list())?.version, last);
  });

  test('referrers: a version counts as amended when a row was changed or removed, not when rows were added', async (t) => {
    const {commit, list} = await setUp(t);
    const one = referring('one');
    const step = async (what: string, amends: boolean, ...changes: Change[]) => {
      const before = (await list()) ?? {version: 0, amended: 0};
      await commit(...changes);
      const {version, amended} = (await list()) ?? {version: 0, amended: 0};
      t.true(version > before.version, what);
      t.is(amended, amends ? version : before.amended, what);
    };
    const [a, b, c] = [described('a'), described('b'), described('c')];
    await step('a first edge', false, one.put);
    await step('further ones by an answer', false, answer([a, b, one.descriptor]));
    await step('the same answer, later', false, answer([a, b, one.descriptor], {at: 6_000}));
    await step('an answer that lacks what is here by its content', false, answer([a, b], {at: 7_000}));
    await step('another descriptor', true, answer([described('a', {size: 9}), b], {at: 8_000}));
    await step('an edge more', false, referring('two').put);
    await step('an answer that lacks one and has one more', true, answer([b, c], {at: 9_000}));
    await step('the same by another way', true, answer([b, c], {at: 9_000, source: 'tag'}));
    await step('a deletion', true, {
      type: 'referrer.delete',
      repository: APP,
      subject: SUBJECT,
      digest: b.digest,
    });
    await step('an edge more', false, referring('three').put);
    await step('an unlinking', true, {type: 'manifest.unlink', repository: APP, digest: one.digest});
  });

  test('referrers: an edge that a reindex restores amends the list, since other rows may have been lost as well', async (t) => {
    const {commit, list} = await setUp(t);
    const one = referring('one');
    await commit(one.put, {type: 'referrer.delete', repository: APP, subject: SUBJECT, digest: one.digest});
    await commit({type: 'referrer.put', repository: APP, edge: one.edge, at: 1});
    const {version = 0, amended = 0} = (await list()) ?? {};
    t.is(version, 3);
    t.is(amended, version);
  });

  test('referrers: deleting a referrer leaves the same digest under other subjects', async (t) => {
    const {commit, rows} = await setUp(t);
    const other = digestOf(Buffer.from('other subject'));
    await commit(answer([described('a'), described('b')]), answer([described('a')], {subject: other}));
    const {digest} = described('a');
    await commit({type: 'referrer.delete', repository: APP, subject: SUBJECT, digest});
    t.deepEqual(digests(await rows()), [described('b').digest]);
    t.deepEqual(digests(await rows({}, APP, other)), [digest]);
  });

  test('referrers: unlinking a copy removes its link, its tags and its edge, in this repository only', async (t) => {
    const {metadata, commit, rows} = await setUp(t);
    const [one, two] = [referring('one'), referring('two')];
    const {digest} = one;
    const tag = (name: string, of: Digest, origin: 'upstream' | 'local') =>
      ({type: 'tag.put', repository: APP, name: name as Tag, digest: of, origin, at: 1}) as const;
    await commit(one.put, two.put, {...one.put, repository: OTHER});
    await commit(
      tag('copied', digest, 'upstream'),
      tag('copied-too', digest, 'upstream'),
      tag('pushed', digest, 'local'),
      tag('another', two.digest, 'upstream'),
      {...tag('copied', digest, 'upstream'), repository: OTHER},
    );
    await commit({type: 'manifest.unlink', repository: APP, digest});
    t.is(await metadata.manifest(APP, digest), undefined);
    t.deepEqual(digests(await rows()), [two.digest]);
    t.is(await metadata.tag(APP, 'copied' as Tag), undefined);
    t.is(await metadata.tag(APP, 'copied-too' as Tag), undefined);
    t.like(await metadata.tag(APP, 'pushed' as Tag), {digest, origin: 'local'});
    t.like(await metadata.tag(APP, 'another' as Tag), {digest: two.digest});
    t.truthy(await metadata.manifest(OTHER, digest));
    t.truthy(await metadata.tag(OTHER, 'copied' as Tag));
    t.deepEqual(digests(await rows({}, OTHER)), [digest]);
  });

  test('referrers: unlinking leaves what was pushed here, and removes what only an upstream named', async (t) => {
    const {metadata, commit, rows} = await setUp(t);
    const pushed = referring('pushed');
    await commit({...pushed.put, origin: 'local'}, answer([described('named')]));
    await commit(
      {type: 'manifest.unlink', repository: APP, digest: pushed.digest},
      {type: 'manifest.unlink', repository: APP, digest: described('named').digest},
      {type: 'manifest.unlink', repository: APP, digest: digestOf(Buffer.from('unknown'))},
    );
    t.like(await metadata.manifest(APP, pushed.digest), {origin: 'local'});
    t.deepEqual(digests(await rows()), [pushed.digest]);
  });

  test('referrers: an edge is rebuilt only where its manifest is linked', async (t) => {
    const {metadata, commit, rows} = await setUp(t);
    const {put, edge, digest} = referring('one');
    const rebuild = (repository: RepositoryKey) => ({type: 'referrer.put', repository, edge, at: 1}) as const;
    await commit({...put, edge: undefined});
    await commit(manifestPut('{}', {repository: OTHER}));
    await commit(rebuild(APP), rebuild(OTHER), rebuild({registry: 'ghcr.io', name: parseName('new')}));
    t.like(await rows(), [{digest, descriptor: JSON.stringify(edge.descriptor), source: 'content'}]);
    t.deepEqual(await rows({}, OTHER), []);
    t.deepEqual(await metadata.repositories('ghcr.io', {limit: 1}), []);
  });

  test('referrers: pages follow each other without gap or repetition while the list grows', async (t) => {
    const {commit, rows} = await setUp(t);
    const all = Array.from({length: 25}, (_, index) => referring(`${index}`));
    await commit(...all.slice(0, 20).map(({put}) => put));
    const seen: Digest[] = [];
    let after: number | undefined;
    for (let page = 0; ; page++) {
      const found = await rows({limit: 7, ...(after === undefined ? {} : {after})});
      t.true(found.length <= 7);
      seen.push(...digests(found));
      after = found.at(-1)?.seq ?? after;
      if (found.length < 7) break;
      if (page === 0) await commit(...all.slice(20).map(({put}) => put));
    }
    t.deepEqual(
      seen,
      all.map(({digest}) => digest),
    );
    t.deepEqual(await rows({limit: 0}), []);
    t.deepEqual(await rows({after: 25}), []);
  });

  test('referrers: a filter of types keeps the order, and each page is full', async (t) => {
    const {commit, rows} = await setUp(t);
    const kinds = [SBOM, SIGNATURE, '', 'c/d', `${SBOM}+json`];
    const all = Array.from({length: 40}, (_, index) => {
      const type = kinds[(index * 7) % 5] ?? '';
      const {artifactType: _none, ...untyped} = described(`${index}`);
      return {type, descriptor: type === '' ? untyped : {...untyped, artifactType: type}};
    });
    await commit(answer(all.map(({descriptor}) => descriptor)));
    const of = (types: readonly string[]) =>
      all.filter(({type}) => types.includes(type)).map(({descriptor}) => descriptor.digest);

    for (const types of [[SBOM], [''], [SIGNATURE, ''], ['', SBOM, 'c/d', SBOM], kinds, ['none'], []]) {
      t.deepEqual(digests(await rows({types})), of(types));
      const first = await rows({types, limit: 3});
      t.deepEqual(digests(first), of(types).slice(0, 3));
      const after = first.at(-1)?.seq ?? 0;
      t.deepEqual(digests(await rows({types, after, limit: 3})), of(types).slice(3, 6));
    }
    t.is(of([SBOM]).length, 8);
  });

  test('referrers: a filter may name any number of types', async (t) => {
    const {commit, rows} = await setUp(t);
    const types = Array.from({length: 60}, (_, index) => `type/${(index * 17) % 60}`);
    const all = types.map((artifactType) => described(artifactType, {artifactType}));
    await commit(answer(all));
    const many = [...Array.from({length: 300}, (_, index) => `absent/${index}`), ...types].reverse();
    t.deepEqual(
      digests(await rows({types: many})),
      all.map(({digest}) => digest),
    );
    t.deepEqual(
      digests(await rows({types: many, after: 10, limit: 20})),
      all.slice(10, 30).map(({digest}) => digest),
    );
  });

  test('referrers: any text is read back as it was written', async (t) => {
    const {commit, rows} = await setUp(t);
    const odd = described('a', {artifactType: 'ünï/“x” %_', annotations: {'\n': '\u0000 " \\ 🦑', '': ''}});
    await commit(answer([odd]));
    t.like(await rows({types: ['ünï/“x” %_']}), [
      {artifactType: 'ünï/“x” %_', descriptor: JSON.stringify(odd)},
    ]);
    t.deepEqual(await rows({types: ['ünï/“x” %%']}), []);
  });

  test('referrers: the subjects of a fallback tag are found by the beginning of their digest', async (t) => {
    const {metadata, commit} = await setUp(t);
    const long = digestOf(Buffer.from('x'), 'sha512');
    const twin = `${long.slice(0, 7 + 64)}${'f'.repeat(64)}` as Digest;
    await commit(
      referring('one', SBOM, twin).put,
      referring('two', SBOM, long).put,
      referring('three', SBOM, digestOf(Buffer.from('y'), 'sha512')).put,
      referring('four').put,
      answer([], {repository: OTHER}),
    );
    t.deepEqual(await metadata.referrerSubjects(APP, long.slice(0, 7 + 64)), [long, twin].sort());
    t.deepEqual(await metadata.referrerSubjects(APP, long), [long]);
    t.deepEqual(await metadata.referrerSubjects(APP, SUBJECT), [SUBJECT]);
    t.deepEqual(await metadata.referrerSubjects(APP, SUBJECT.slice(0, -1)), [SUBJECT]);
    t.deepEqual(await metadata.referrerSubjects(APP, digestOf(Buffer.from('none'))), []);
  });

  test('referrers: the walk over all manifests gives every link once, even while links are added', async (t) => {
    const {metadata, commit} = await setUp(t);
    const puts = Array.from({length: 10}, (_, index) => manifestPut(`manifest ${index}`));
    await commit(...puts, ...puts.slice(0, 3).map((put) => ({...put, repository: OTHER, mediaType: 'a/b'})));
    const seen: LinkedManifest[] = [];
    let after: ManifestCursor | undefined;
    for (;;) {
      const page = await metadata.manifests(after, 4);
      t.true(page.length <= 4);
      if (page.length === 0) break;
      seen.push(...page);
      after = page.at(-1)?.cursor;
      await commit(...puts.map((put) => ({...put, at: 9_000})));
    }
    const keyOf = ({repository, digest, mediaType, bytes}: Omit<LinkedManifest, 'cursor'>) =>
      `${repository.name} ${digest} ${mediaType} ${bytes}`;
    const expected = [
      ...puts,
      ...puts.slice(0, 3).map((put) => ({...put, repository: OTHER, mediaType: 'a/b'})),
    ].map((put) => keyOf({...put, bytes: Buffer.from(put.bytes)}));
    t.deepEqual(seen.map(keyOf).sort(), expected.sort());
    t.true(seen.every(({bytes}) => Buffer.isBuffer(bytes)));
  });

  test('referrers: the walk over all manifests goes from the oldest link to the newest', async (t) => {
    const {metadata, commit} = await setUp(t);
    t.is(await metadata.lastManifest(), undefined);
    const puts = Array.from({length: 10}, (_, index) => manifestPut(`manifest ${index}`));
    for (const put of puts) await commit(put);
    await commit({...puts[0], at: 9_000} as Change, {...puts[3], repository: OTHER} as Change);
    const walked = await metadata.manifests(undefined, 100);
    t.deepEqual(
      walked.map(({repository, digest}) => `${repository.name} ${digest}`),
      [...puts.map(({digest}) => `${APP.name} ${digest}`), `${OTHER.name} ${puts[3]?.digest}`],
    );
    t.is(await metadata.lastManifest(), walked.at(-1)?.cursor);
    t.true(walked.every(({cursor}, index) => cursor > (walked[index - 1]?.cursor ?? 0)));
  });

  test('referrers: the walk over all referrers gives each one once, even while some are removed', async (t) => {
    const {metadata, commit} = await setUp(t);
    const subjects = [1, 2, 3].map((index) => digestOf(Buffer.from(`subject ${index}`)));
    const all = subjects.flatMap((subject) =>
      ['a', 'b', 'c'].map((name) => referring(`${name} ${subject}`, SBOM, subject)),
    );
    await commit(...all.map(({put}) => put), {...all[0]?.put, repository: OTHER} as Change);
    await commit(answer([described('x')], {repository: OTHER}));
    const seen: ReferrerRow[] = [];
    for (let after: ReferrerCursor | undefined; ; ) {
      const page = await metadata.referrerRows(after, 2);
      if (page.length === 0) break;
      seen.push(...page);
      after = page.at(-1)?.cursor;
      for (const {repository, subject, digest} of page)
        await commit({type: 'referrer.delete', repository, subject, digest});
    }
    const keyOf = ({repository, subject, digest, source}: Omit<ReferrerRow, 'cursor'>) =>
      `${repository.name} ${subject} ${digest} ${source}`;
    const content = all.map(({subject, digest}) => ({
      repository: APP,
      subject,
      digest,
      source: 'content' as const,
    }));
    const expected = [
      ...content,
      ...content.slice(0, 1).map((row) => ({...row, repository: OTHER})),
      {repository: OTHER, subject: SUBJECT, digest: described('x').digest, source: 'api' as const},
    ];
    t.deepEqual(seen.map(keyOf).sort(), expected.map(keyOf).sort());
  });

  test('referrers: what the walk rebuilds equals what the commits had made', async (t) => {
    const [one, two] = [await setUp(t), await setUp(t)];
    const all = Array.from({length: 30}, (_, index) =>
      referring(`${index}`, index % 3 === 0 ? '' : SBOM, digestOf(Buffer.from(`subject ${index % 4}`))),
    );
    for (const {put} of all) {
      await one.commit(put, {...put, repository: OTHER});
      await two.commit({...put, edge: undefined}, {...put, repository: OTHER, edge: undefined});
    }
    for (let after: ManifestCursor | undefined; ; ) {
      const page = await two.metadata.manifests(after, 7);
      after = page.at(-1)?.cursor;
      if (!after) break;
      const edges = page.map((manifest) => ({repository: manifest.repository, edge: edgeOf(manifest)}));
      await two.commit(
        ...edges.flatMap(({repository, edge}): Change[] =>
          edge ? [{type: 'referrer.put', repository, edge, at: 1}] : [],
        ),
      );
    }
    const known = async ({rows}: typeof one) => {
      const found = await Promise.all(
        [APP, OTHER].flatMap((repository) =>
          [0, 1, 2, 3].map((index) => rows({}, repository, digestOf(Buffer.from(`subject ${index}`)))),
        ),
      );
      return found.map((list) => list.map(({seq: _, ...row}) => JSON.stringify(row)).sort());
    };
    t.deepEqual(await known(two), await known(one));
  });

  test('referrers: 50 edges of one subject that are committed at once get a place each', async (t) => {
    const {metadata, list, rows} = await setUp(t);
    const all = Array.from({length: 50}, (_, index) => referring(`${index}`));
    await Promise.all(all.map(({put}) => metadata.commit([put])));
    t.deepEqual(
      (await rows()).map(({seq}) => seq),
      all.map((_, index) => index + 1),
    );
    t.is((await list())?.version, 50);
  });

  test('referrers: everything is still there after closing and reopening', async (t) => {
    const {place, metadata, commit, list, rows} = await setUp(t);
    await commit(referring('one').put, answer([described('a'), described('b')]));
    const before = [await list(), await rows()];
    await metadata.close();
    const reopened = await place.open();
    t.teardown(() => reopened.close());
    t.deepEqual(
      [await reopened.referrerList(APP, SUBJECT), await reopened.referrers(APP, SUBJECT, {limit: 9})],
      before,
    );
    await reopened.commit([answer([described('c')])]);
    t.like(await reopened.referrers(APP, SUBJECT, {after: 3, limit: 9}), [{seq: 4}]);
  });
}
