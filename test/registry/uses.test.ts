import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName} from '../../src/oci/name.ts';
import {createUses} from '../../src/registry/uses.ts';
import {DiskFull, type Metadata} from '../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {createMovableClock, startBackref} from '../support/backref.ts';
import {manifestAnswer, plainManifest} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const repository = {registry: 'docker.io', name: parseName('library/app')};
const other = {registry: 'docker.io', name: parseName('library/other')};
const digest = digestOf(Buffer.from('manifest'));

async function setUp(t: ExecutionContext, failure?: () => Error | undefined) {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const clock = createMovableClock();
  for (const linked of [repository, other])
    await metadata.commit([
      {
        type: 'manifest.put',
        repository: linked,
        digest,
        mediaType: 'text/any',
        bytes: Buffer.from('manifest'),
        edge: undefined,
        references: [],
        origin: 'upstream',
        at: clock.now(),
      },
    ]);
  const commit: Metadata['commit'] = async (...asked) => {
    const error = failure?.();
    if (error) throw error;
    return metadata.commit(...asked);
  };
  const uses = createUses({metadata: {commit, cacheAge: () => metadata.cacheAge()}, clock});
  const written = async () => (await metadata.links(undefined, 10)).map((link) => link.uses);
  return {metadata, clock, uses, written};
}

test('uses of one manifest between two flushes count once, in each repository of their own', async (t) => {
  const {metadata, clock, uses, written} = await setUp(t);
  await metadata.commit([{type: 'cache-age.put', age: 1.5}]);
  for (let time = 0; time < 3; time++) uses.record(repository, digest);
  t.deepEqual(await written(), [0, 0]);
  clock.move(60_000);
  await uses.flush();
  t.deepEqual(await written(), [1, 0]);
  t.like((await metadata.links(undefined, 1))[0], {lastAccess: clock.now(), age: 1.5});
  uses.record(repository, digest);
  uses.record(other, digest);
  await uses.flush();
  await uses.flush();
  t.deepEqual(await written(), [2, 1]);
});

test('a manifest is in use for at least a minute after it was served, written or not', async (t) => {
  const {clock, uses} = await setUp(t);
  t.false(uses.isRecent(repository, digest));
  uses.record(repository, digest);
  t.true(uses.isRecent(repository, digest));
  t.false(uses.isRecent(other, digest));
  await uses.flush();
  clock.move(59_999);
  t.true(uses.isRecent(repository, digest));
  clock.move(1);
  t.false(uses.isRecent(repository, digest));
});

test('a full disk keeps uses for the next flush, silently', async (t) => {
  let error: Error | undefined = new DiskFull('full', 'no space');
  const {uses, written} = await setUp(t, () => error);
  uses.record(repository, digest);
  await uses.flush();
  uses.record(repository, digest);
  error = undefined;
  await uses.flush();
  t.deepEqual(await written(), [1, 0]);
});

test('another failure is thrown, and keeps uses as well', async (t) => {
  let error: Error | undefined = new Error('closed');
  const {uses, written} = await setUp(t, () => error);
  uses.record(repository, digest);
  await t.throwsAsync(uses.flush(), {message: 'closed'});
  error = undefined;
  await uses.flush();
  t.deepEqual(await written(), [1, 0]);
});

test('uses that wait are bounded: those of further manifests are lost', async (t) => {
  const {uses} = await setUp(t);
  const digests = Array.from({length: 100_001}, (_, index) => `sha256:${index}` as typeof digest);
  for (const each of digests) uses.record(repository, each);
  t.true(uses.isRecent(repository, digests[99_999] ?? digest));
  t.false(uses.isRecent(repository, digests[100_000] ?? digest));
});

test('every manifest that is served counts, by tag, by digest and by HEAD, and its uses are written at the end', async (t) => {
  const [pulled, asked] = [plainManifest(), plainManifest()];
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(pulled)},
    {request: `GET /v2/library/app/manifests/${asked.digest}`, answer: manifestAnswer(asked)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask('/v2/app/manifests/1');
  await proxy.ask(`/v2/app/manifests/${pulled.digest}`);
  await proxy.ask(`/v2/app/manifests/${asked.digest}`);
  const usesAfter = async () => {
    await proxy.server.close();
    const metadata = await openSqliteMetadata({path: join(proxy.folder, 'meta.db')});
    const links = await metadata.links(undefined, 10);
    await metadata.close();
    return new Map(links.map((link) => [link.digest, link.uses]));
  };
  t.deepEqual(await usesAfter(), new Map([pulled, asked].map((manifest) => [manifest.digest, 1])));

  const again = await startBackref(t, {registries: [upstream], folder: proxy.folder, clock: proxy.clock});
  await again.ask(`/v2/app/manifests/${asked.digest}`, {method: 'HEAD'});
  await again.server.close();
  t.is((await usesAfter()).get(asked.digest), 2);
});
