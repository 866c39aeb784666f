import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createEvents} from '../../../src/events.ts';
import {parseDigest} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {createGenerations} from '../../../src/registry/generations.ts';
import {createListRecords, type Learned} from '../../../src/registry/referrers/list-records.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock} from '../../support/backref.ts';
import {type ManifestContent, plainManifest} from '../../support/content.ts';
import {pulledManifest} from '../../support/copies.ts';
import {createFolder} from '../../support/folder.ts';
import {referrerOf} from '../../support/referrers.ts';
import {registryOver} from '../../support/registry.ts';

const HOST = 'example.test';
const repository = {registry: HOST, name: parseName('team/app')};
const route = {registry: registryOver(HOST, {}), repository, asked: repository.name};
const subject = plainManifest();
const [older, newer] = [referrerOf(subject), referrerOf(subject)];

async function setUp(t: ExecutionContext) {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const clock = createMovableClock();
  const records = createListRecords({
    metadata,
    generations: createGenerations(),
    clock,
    events: createEvents(),
  });
  const asked = clock.now();
  clock.move(60_000);
  return {
    /** Keeps an answer to a question that was asked so many milliseconds after the first one. */
    keep: (after: number, named: readonly ManifestContent[], change: Partial<Learned> = {}) => {
      const descriptors = named.map(({digest, mediaType, bytes}) => ({
        digest,
        mediaType,
        size: bytes.length,
      }));
      const kept = Promise.resolve();
      const learned = {source: 'api' as const, descriptors, skipped: [], kept, at: asked + after, ...change};
      return records.keep(route, subject.digest, learned);
    },
    checkedAfter: async () => {
      const checkedAt = await records.checkedAt(route, subject.digest);
      return checkedAt === undefined ? undefined : checkedAt - asked;
    },
    isEmpty: async () => {
      const checkedAt = await records.checkedAt(route, subject.digest);
      return checkedAt !== undefined && records.isEmpty(route, subject.digest, checkedAt);
    },
    remove: async ({digest}: ManifestContent) => {
      await metadata.commit([{type: 'manifest.delete', repository, digest}]);
      records.deleted(route, parseDigest(digest));
    },
    evict: async () => {
      const {digest} = subject;
      await metadata.commit([{type: 'manifest.evict', repository, root: digest, digest, at: clock.now()}]);
      records.evicted(repository, digest);
    },
    pull: (manifest: ManifestContent) => metadata.commit([pulledManifest(repository, manifest, clock.now())]),
    skipped: () => records.skipped(route, subject.digest),
    listed: async () =>
      (await metadata.referrers(repository, subject.digest, {limit: 10})).map(({digest}) => digest),
  };
}

test('a late answer does not replace the answer to a later question', async (t) => {
  const {keep, listed, checkedAfter} = await setUp(t);
  await keep(1000, [older, newer]);
  await keep(0, [older]);
  t.deepEqual(await listed(), [older.digest, newer.digest]);
  t.is(await checkedAfter(), 1000);
});

test('a late empty list that is only remembered does not replace the answer to a later question', async (t) => {
  const {keep, checkedAfter} = await setUp(t);
  await keep(1000, []);
  await keep(0, []);
  t.is(await checkedAfter(), 1000);
});

test('a late incomplete list does not replace the answer to a later question, and the complete one stays complete', async (t) => {
  const {keep, listed, skipped} = await setUp(t);
  await keep(1000, [older, newer]);
  await keep(0, [], {skipped: [{digest: newer.digest, reason: 'refused'}]});
  t.deepEqual(await listed(), [older.digest, newer.digest]);
  t.deepEqual(skipped(), []);
});

for (const [what, named] of [
  ['a whole list', [older]],
  ['an empty list', []],
] as const) {
  test(`${what} that comes late is not taken for the answer to a later question, which was not the complete list`, async (t) => {
    const {keep, listed, skipped, checkedAfter} = await setUp(t);
    const refused = [{digest: newer.digest, reason: 'refused'}];
    await keep(1000, [], {skipped: refused});
    await keep(0, named);
    t.deepEqual(skipped(), refused);
    t.deepEqual(await listed(), []);
    t.is(await checkedAfter(), undefined);
  });
}

test('an empty list that is only remembered is forgotten when a later answer was incomplete', async (t) => {
  const {keep, checkedAfter} = await setUp(t);
  await keep(0, []);
  await keep(1000, [], {skipped: [{digest: newer.digest, reason: 'refused'}]});
  t.is(await checkedAfter(), undefined);
});

test('a late incomplete list does not replace an empty list that is only remembered', async (t) => {
  const {keep, checkedAfter, skipped} = await setUp(t);
  await keep(1000, []);
  await keep(0, [], {skipped: [{digest: newer.digest, reason: 'refused'}]});
  t.is(await checkedAfter(), 1000);
  t.deepEqual(skipped(), []);
});

test('a list is empty as soon as its last referrer was deleted through us', async (t) => {
  const {keep, isEmpty, remove} = await setUp(t);
  await keep(0, [older]);
  t.false(await isEmpty());
  await remove(older);
  t.true(await isEmpty());
});

test('an empty list from before the first referrer does not come back when the subject is evicted', async (t) => {
  const {keep, checkedAfter, listed, pull, evict} = await setUp(t);
  await keep(0, []);
  t.is(await checkedAfter(), 0, 'it is only remembered');
  await pull(subject);
  await keep(1000, [older]);
  await evict();
  t.deepEqual(await listed(), []);
  t.is(await checkedAfter(), undefined, 'the list is asked for again');
});

test('a list that was incomplete before its subject was evicted is unknown as a whole', async (t) => {
  const {keep, checkedAfter, skipped, pull, evict} = await setUp(t);
  await pull(subject);
  await keep(0, [older]);
  await keep(1000, [older], {skipped: [{digest: newer.digest, reason: 'refused'}]});
  await evict();
  t.deepEqual(skipped(), []);
  t.is(await checkedAfter(), undefined);
});
