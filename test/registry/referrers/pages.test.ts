import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import fc from 'fast-check';
import type {Descriptor} from '../../../src/oci/descriptor.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {parseName} from '../../../src/oci/name.ts';
import {createReferrersPages, type ReferrersQuery} from '../../../src/registry/referrers/pages.ts';
import type {Metadata} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';

const APP = {registry: 'docker.io', name: parseName('library/app')};
const SUBJECT = digestOf(Buffer.from('subject'));
const ALL = {types: undefined, after: undefined};
const TYPES = ['application/a', 'application/b', ''];
const MEGABYTE = 1024 * 1024;

async function openMetadata(t: ExecutionContext): Promise<Metadata> {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  return metadata;
}

const described = (name: string, artifactType: string, bytes = 10): Descriptor => ({
  mediaType: OCI_MANIFEST,
  digest: digestOf(Buffer.from(name)),
  size: bytes,
  ...(artifactType === '' ? {} : {artifactType}),
  annotations: {name, filling: 'x'.repeat(bytes)},
});

const answers = (metadata: Metadata, descriptors: readonly Descriptor[]) =>
  metadata.commit([
    {
      type: 'referrer-list.put',
      repository: APP,
      subject: SUBJECT,
      source: 'api',
      descriptors,
      at: 1,
    },
  ]);

const digestsIn = (body: Buffer): string[] =>
  JSON.parse(body.toString()).manifests.map(({digest}: Descriptor) => digest);

/** One change of a list as its registry gives it. Additions come most often, so that lists grow. */
const step = fc.oneof(
  {weight: 6, arbitrary: fc.record({add: fc.constantFrom(...TYPES), size: fc.constantFrom(10, MEGABYTE)})},
  {weight: 1, arbitrary: fc.record({remove: fc.nat(9)})},
  {weight: 1, arbitrary: fc.record({resize: fc.nat(9)})},
);

test('after any change, a page that was rendered before equals one that is rendered now', async (t) => {
  const metadata = await openMetadata(t);
  const pages = createReferrersPages(metadata);
  let added = 0;

  /** As `pages` gives it, and as one gives it that has rendered nothing before. */
  async function compare(types: readonly string[] | undefined): Promise<number> {
    const asNew = createReferrersPages(metadata);
    let [count, after]: [number, number | undefined] = [0, undefined];
    do {
      const query: ReferrersQuery = {types, after};
      const [held, fresh] = [await pages.page(APP, SUBJECT, query), await asNew.page(APP, SUBJECT, query)];
      if (!held.body.equals(fresh.body) || held.next !== fresh.next) {
        throw new Error(`the page of types ${types} behind ${after} is another one`);
      }
      count += digestsIn(fresh.body).length;
      after = fresh.next;
    } while (after !== undefined);
    return count;
  }

  await fc.assert(
    fc.asyncProperty(fc.array(step, {minLength: 1, maxLength: 12}), async (steps) => {
      let list: Descriptor[] = [];
      for (const change of steps) {
        if ('add' in change) list = [...list, described(`${added++}`, change.add, change.size)];
        else if ('remove' in change) list = list.filter((_, index) => index !== change.remove);
        else list = list.map((one, index) => (index === change.resize ? {...one, size: one.size + 1} : one));
        await answers(metadata, list);
        if ((await compare(undefined)) !== list.length) throw new Error('the pages do not have them all');
        await compare(['application/a']);
        await compare(['application/b', '']);
      }
    }),
    {numRuns: 20, seed: 5, endOnFailure: true},
  );
  t.true(added > 50);
});

test('what was added is read, and nothing is read twice', async (t) => {
  const metadata = await openMetadata(t);
  const read: number[] = [];
  const pages = createReferrersPages({
    ...metadata,
    async referrerText(...asked) {
      const some = await metadata.referrerText(...asked);
      read.push(some.count);
      return some;
    },
  });
  const [one, two, three] = ['one', 'two', 'three'].map((name) => described(name, 'application/a'));
  if (!one || !two || !three) throw new Error('there are three');
  const listed = async () => digestsIn((await pages.page(APP, SUBJECT, ALL)).body);
  await answers(metadata, [one, two]);
  t.deepEqual(await listed(), [one.digest, two.digest]);
  await answers(metadata, [one, two, three]);
  t.deepEqual(await listed(), [one.digest, two.digest, three.digest]);
  await answers(metadata, [one, two, three]);
  t.is((await listed()).length, 3);
  t.is((await listed()).length, 3);
  t.deepEqual(read, [2, 1, 0]);
  await answers(metadata, [two, three]);
  t.deepEqual(await listed(), [two.digest, three.digest]);
  t.deepEqual(read, [2, 1, 0, 2]);
});

test('a full page does not change while the list grows, and is not read again', async (t) => {
  const metadata = await openMetadata(t);
  const [pages, list] = [createReferrersPages(metadata), [] as Descriptor[]];
  for (const name of ['one', 'two', 'three']) list.push(described(name, 'application/a', 2 * MEGABYTE));
  await answers(metadata, list);
  const first = await pages.page(APP, SUBJECT, ALL);
  t.is(digestsIn(first.body).length, 1);
  const second = {types: undefined, after: first.next};
  t.is((await pages.page(APP, SUBJECT, second)).next, 2);
  await answers(metadata, [...list, described('four', 'application/a')]);
  t.is((await pages.page(APP, SUBJECT, ALL)).body, first.body);
  const last = await pages.page(APP, SUBJECT, {types: undefined, after: 2});
  t.is(digestsIn(last.body).length, 2);
  t.is(last.next, undefined);
});

test('the page of a list that is not stored yet is the one that it has once it is stored', async (t) => {
  const list = TYPES.flatMap((type) => [described(`${type} 1`, type), described(`${type} 2`, type)]);
  const metadata = await openMetadata(t);
  const pages = createReferrersPages(metadata);
  await answers(metadata, list);
  for (const types of [undefined, ['application/a'], ['', 'application/b'], ['application/none'], []]) {
    const query = {types, after: undefined};
    t.deepEqual(pages.unwritten(list, query), await pages.page(APP, SUBJECT, query));
  }
});

test('a list of more than one page, or whose later page is requested, has no page before it is stored', async (t) => {
  const pages = createReferrersPages(await openMetadata(t));
  const list = Array.from({length: 5}, (_, number) => described(`${number}`, 'application/a', MEGABYTE));
  t.is(pages.unwritten(list, ALL), undefined);
  t.truthy(pages.unwritten(list.slice(0, 3), ALL));
  t.is(pages.unwritten(list.slice(0, 3), {...ALL, after: 1}), undefined);
});

test('a page ends with the last descriptor that fits, however many are read at a time', async (t) => {
  const metadata = await openMetadata(t);
  const list = Array.from({length: 9000}, (_, number) =>
    described(`${number}`, TYPES[number % 3] ?? '', 500),
  );
  await answers(metadata, list);
  const pages = createReferrersPages(metadata);
  const first = await pages.page(APP, SUBJECT, ALL);
  const next = list[digestsIn(first.body).length];
  t.true(first.body.length <= 4 * MEGABYTE);
  t.true(first.body.length + JSON.stringify(next).length + 1 > 4 * MEGABYTE);
  const second = await pages.page(APP, SUBJECT, {...ALL, after: first.next});
  t.deepEqual(
    [...digestsIn(first.body), ...digestsIn(second.body)],
    list.map(({digest}) => digest),
  );
});

test('few descriptors are read at a time where they are large', async (t) => {
  const metadata = await openMetadata(t);
  await answers(
    metadata,
    Array.from({length: 100}, (_, number) => described(`${number}`, 'application/a', 300_000)),
  );
  let most = 0;
  const pages = createReferrersPages({
    ...metadata,
    async referrerText(...asked) {
      const some = await metadata.referrerText(...asked);
      most = Math.max(most, some.text?.length ?? 0);
      return some;
    },
  });
  t.is(digestsIn((await pages.page(APP, SUBJECT, ALL)).body).length, 13);
  t.true(most < 5 * MEGABYTE, `${most} bytes`);
});

test('the whole list is given if it fits into one manifest, and nothing otherwise', async (t) => {
  const metadata = await openMetadata(t);
  const list = Array.from({length: 5}, (_, number) => described(`${number}`, 'application/a', 3 * MEGABYTE));
  const pages = createReferrersPages(metadata);
  await answers(metadata, list);
  t.is(digestsIn((await pages.whole(APP, SUBJECT)) ?? Buffer.alloc(0)).length, 5);
  await answers(metadata, [...list, described('one more', 'application/a', 3 * MEGABYTE)]);
  t.is(await pages.whole(APP, SUBJECT), undefined);
});

test('large descriptors after many small ones are read one by one, and small ones after them together again', async (t) => {
  const metadata = await openMetadata(t);
  const small = (from: number, count: number) =>
    Array.from({length: count}, (_, number) => described(`${from + number}`, 'application/a'));
  const large = Array.from({length: 30}, (_, number) => described(`l${number}`, 'application/a', 80_000));
  const list = [...small(0, 600), ...large, ...small(600, 600)];
  await answers(metadata, list);
  let [reads, most] = [0, 0];
  const pages = createReferrersPages({
    ...metadata,
    async referrerText(...asked) {
      const some = await metadata.referrerText(...asked);
      reads += 1;
      most = Math.max(most, some.text?.length ?? 0);
      return some;
    },
  });
  const {body, next} = await pages.page(APP, SUBJECT, ALL);
  t.deepEqual(
    digestsIn(body),
    list.map(({digest}) => digest),
  );
  t.is(next, undefined);
  t.true(most < MEGABYTE, `${most} bytes`);
  t.true(reads < 150, `${reads} reads`);
});
