import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import type {Digest} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {type Arrival, createManifestPull} from '../../../src/registry/pull/manifest.ts';
import {createWriteFence} from '../../../src/registry/write-fence.ts';
import {type Change, DiskFull, type Metadata} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../../../src/upstream/port.ts';
import {createMovableClock} from '../../support/backref.ts';
import {plainManifest} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {fillDisk} from '../../support/full-disk.ts';
import {registryOver} from '../../support/registry.ts';

const HOST = 'example.test';
const repository = {registry: HOST, name: parseName('team/app')};
const [one, two, three] = [plainManifest(), plainManifest(), plainManifest()];

const isDenied = (error: unknown): error is UpstreamFailure =>
  error instanceof UpstreamFailure && error.kind === 'denied';

/** Requests to the upstream wait until the test answers them. */
async function setUp(t: ExecutionContext) {
  const folder = await createFolder(t);
  const real = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => real.close());
  const commits: (readonly Change[])[] = [];
  const metadata: Metadata = {
    ...real,
    commit: (changes, preconditions) => {
      commits.push(changes);
      return real.commit(changes, preconditions);
    },
  };
  const questions = new Map<string, PromiseWithResolvers<ManifestBody | undefined>>();
  const asked: string[] = [];
  const registry = registryOver(HOST, {
    getManifest: (_repository, reference) => {
      asked.push(reference);
      const question = Promise.withResolvers<ManifestBody | undefined>();
      questions.set(reference, question);
      return question.promise;
    },
  });
  const writeFence = createWriteFence();
  const arrivals: Arrival[] = [];
  const pull = createManifestPull({
    metadata,
    writeFence,
    clock: createMovableClock(),
    arrived: (arrival) => void arrivals.push(arrival),
  });
  const route = {registry, repository, asked: repository.name};
  return {
    folder,
    metadata,
    commits,
    asked,
    arrivals,
    pullAll: (...digests: Digest[]) => pull.byDigests(route, digests, ANONYMOUS, isDenied),
    pullOne: (digest: Digest) => pull.byDigest(route, digest, ANONYMOUS),
    write: (digest: Digest, changes: readonly Change[]) =>
      writeFence.run(route, [digest], () => real.commit(changes)),
    has: async (digest: Digest) => (await real.manifest(repository, digest)) !== undefined,
    answer: (manifest: typeof one) => questions.get(manifest.digest)?.resolve(manifest),
    deny: ({digest}: typeof one) => questions.get(digest)?.resolve(undefined),
    fail: ({digest}: typeof one, error: Error) => questions.get(digest)?.reject(error),
  };
}

test('several manifests are fetched side by side and become one commit, in the order in which they were named', async (t) => {
  const {pullAll, answer, deny, commits, arrivals} = await setUp(t);
  const pulling = pullAll(one.digest, two.digest, three.digest);
  answer(three);
  deny(two);
  answer(one);
  const {records, kept} = await pulling;
  await kept;
  t.deepEqual(
    records.map((record) => record?.digest),
    [one.digest, undefined, three.digest],
  );
  t.deepEqual(
    commits.map((changes) => changes.map((change) => 'digest' in change && change.digest)),
    [[one.digest, three.digest]],
  );
  t.deepEqual(
    arrivals.map(({record}) => record.digest),
    [one.digest, three.digest],
  );
});

test('when one of several manifests cannot be fetched, the others are kept, and the failure is thrown', async (t) => {
  const {pullAll, answer, fail, has} = await setUp(t);
  const pulling = pullAll(one.digest, two.digest, three.digest);
  answer(three);
  fail(two, new UpstreamFailure('status', HOST, 'answered 500'));
  answer(one);
  await t.throwsAsync(pulling, {instanceOf: UpstreamFailure, message: /answered 500/});
  t.deepEqual(await Promise.all([one, two, three].map(({digest}) => has(digest))), [true, false, true]);
});

test('when one of several manifests has the wrong digest, the others are kept, and the failure is thrown', async (t) => {
  const {pullAll, answer, has} = await setUp(t);
  const pulling = pullAll(one.digest, two.digest);
  answer({...two, digest: one.digest});
  answer(two);
  await t.throwsAsync(pulling, {instanceOf: UpstreamFailure, message: /whose digest is/});
  t.deepEqual([await has(one.digest), await has(two.digest)], [false, true]);
});

test('pulling no manifests makes no commit', async (t) => {
  const {pullAll, commits} = await setUp(t);
  const {records, kept} = await pullAll();
  await kept;
  t.deepEqual(records, []);
  t.deepEqual(commits, []);
});

test('a pull of one of several does not wait for the others, and does not ask for it again', async (t) => {
  const {pullAll, pullOne, answer, asked} = await setUp(t);
  const all = pullAll(one.digest, two.digest);
  const alone = pullOne(one.digest);
  answer(one);
  t.is((await alone).value?.digest, one.digest);
  t.deepEqual(asked, [one.digest, two.digest]);
  answer(two);
  t.is((await all).records.length, 2);
});

test('one of several manifests that is deleted through us meanwhile does not come back', async (t) => {
  const {pullAll, answer, write, has} = await setUp(t);
  const pulling = pullAll(one.digest, two.digest);
  answer(one);
  await new Promise((resolve) => setImmediate(resolve));
  await write(one.digest, [{type: 'manifest.delete', repository, digest: one.digest}]);
  answer(two);
  const {records, kept} = await pulling;
  await kept;
  t.deepEqual(
    records.map((record) => record?.digest),
    [undefined, two.digest],
  );
  t.false(await has(one.digest));
});

test('several manifests are returned before they are kept; a request for one of them waits until it is kept', async (t) => {
  const {pullAll, pullOne, answer, asked, commits, has} = await setUp(t);
  const pulling = pullAll(one.digest, two.digest);
  answer(one);
  answer(two);
  const {records, kept} = await pulling;
  t.deepEqual(
    records.map((record) => record?.digest),
    [one.digest, two.digest],
  );
  t.deepEqual(commits, []);
  const alone = await pullOne(two.digest);
  t.deepEqual(alone.value?.bytes, two.bytes);
  t.true(await has(two.digest));
  await kept;
  t.deepEqual(asked, [one.digest, two.digest]);
  t.is(commits.length, 1);
});

test('on a full disk several manifests are returned all the same, and so is one of them to a request that waits for it', async (t) => {
  const {pullAll, pullOne, answer, folder} = await setUp(t);
  fillDisk(folder);
  const pulling = pullAll(one.digest, two.digest);
  answer(one);
  answer(two);
  const {records, kept} = await pulling;
  t.is(records.length, 2);
  const alone = pullOne(one.digest);
  await t.throwsAsync(kept, {instanceOf: DiskFull});
  t.true((await alone).unkept instanceof DiskFull);
  t.is((await alone).value?.digest, one.digest);
});
