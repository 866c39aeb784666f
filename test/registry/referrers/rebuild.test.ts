import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import test, {type ExecutionContext} from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import type {ReindexProgress} from '../../../src/registry/referrers/rebuild.ts';
import type {ReferrerRecord} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {type Backref, startBackref} from '../../support/backref.ts';
import {imageManifest, type ManifestContent, manifestAnswer} from '../../support/content.ts';
import {descriptorOf, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';

const ALWAYS = new AbortController().signal;
const REPOSITORY = {registry: 'docker.io', name: parseName('library/app')};
const SBOM = 'application/vnd.example.sbom';

/** A server that has pulled all of these manifests, in this order. */
async function pulled(t: ExecutionContext, manifests: readonly ManifestContent[]): Promise<Backref> {
  const upstream = await createScriptedUpstream(
    t,
    manifests.map((manifest) => ({
      request: `GET /v2/library/app/manifests/${manifest.digest}`,
      answer: manifestAnswer(manifest),
    })),
  );
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  for (const {digest} of manifests) t.is((await proxy.ask(`/v2/app/manifests/${digest}`)).status, 200);
  return proxy;
}

/** The rows of the subjects as the port gives them. */
async function rowsOf({folder}: Backref, subjects: readonly ManifestContent[]): Promise<ReferrerRecord[][]> {
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  const rows = await Promise.all(
    subjects.map(({digest}) => metadata.referrers(REPOSITORY, digest, {limit: 1000})),
  );
  await metadata.close();
  return rows;
}

/** What nobody may do: changes the tables beside the port. */
function damage({folder}: Backref, sql: string): void {
  using database = new DatabaseSync(join(folder, 'meta.db'), {timeout: 5000});
  database.exec(sql);
}

async function reindex(proxy: Backref) {
  const steps: ReindexProgress[] = [];
  const commands = await proxy.server.commands();
  const result = await commands.reindex({signal: ALWAYS, progress: (step) => steps.push(step)});
  return {result, steps};
}

const subjects = [imageManifest(), imageManifest()] as const;
const [one, two] = subjects;
const referrers = Array.from({length: 30}, (_, index) =>
  referrerOf(index % 3 === 0 ? one : two, {artifactType: index % 2 === 0 ? SBOM : ''}),
);
const all = [...subjects, ...referrers];

test('a lost index is rebuilt as the pulls had made it, in the same order', async (t) => {
  const proxy = await pulled(t, all);
  const before = await rowsOf(proxy, subjects);
  t.deepEqual(
    before.map((rows) => rows.length),
    [10, 20],
  );
  damage(proxy, 'delete from referrer; delete from referrer_list');
  t.deepEqual(await rowsOf(proxy, subjects), [[], []]);
  t.deepEqual((await reindex(proxy)).result, {manifests: 32, edges: 30, removed: 0});
  t.deepEqual(await rowsOf(proxy, subjects), before);
});

test('an intact index is left as it is', async (t) => {
  const proxy = await pulled(t, all);
  const before = await rowsOf(proxy, subjects);
  t.deepEqual((await reindex(proxy)).result, {manifests: 32, edges: 30, removed: 0});
  t.deepEqual(await rowsOf(proxy, subjects), before);
});

test('edges that no manifest makes are removed, and damaged ones are repaired in place', async (t) => {
  const proxy = await pulled(t, all);
  const before = await rowsOf(proxy, subjects);
  const absent = imageManifest();
  damage(
    proxy,
    `
    update referrer set descriptor = '{}', artifact_type = 'x/y' where seq = 2;
    insert into referrer select repository, subject, 90, '${absent.digest}', '', '{}', 'content', 0
      from referrer where seq = 1;
    insert into referrer select repository, '${absent.digest}', 91, digest, '', '{}', 'content', 0
      from referrer where seq = 1 limit 1;
    `,
  );
  t.deepEqual((await reindex(proxy)).result, {manifests: 32, edges: 30, removed: 3});
  t.deepEqual(await rowsOf(proxy, subjects), before);
  t.deepEqual(await rowsOf(proxy, [absent]), [[]]);
});

test('a lost row of a list is restored, and a lost referrer is appended', async (t) => {
  const proxy = await pulled(t, all);
  const [before = []] = await rowsOf(proxy, [one]);
  damage(
    proxy,
    `delete from referrer_list; delete from referrer where subject = '${one.digest}' and seq = 3`,
  );
  await reindex(proxy);
  const [after = []] = await rowsOf(proxy, [one]);
  const lost = before.filter(({seq}) => seq === 3).map((row) => ({...row, seq: 11}));
  t.deepEqual(after, [...before.filter(({seq}) => seq !== 3), ...lost]);
});

test('referrers that only the upstream listed stay, and so does its list', async (t) => {
  const upstreamOnly = referrerOf(one);
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/library/app/referrers/${one.digest}`,
      answer: listAnswer([descriptorOf(upstreamOnly)]),
    },
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  const list = () => proxy.ask(`/v2/app/referrers/${one.digest}`);
  const before = (await list()).body.toString();
  t.deepEqual((await reindex(proxy)).result, {manifests: 0, edges: 0, removed: 0});
  t.is((await list()).body.toString(), before);
});

test('the server that rebuilds an index serves it at once', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/referrers/${one.digest}`, answer: listAnswer([])},
    ...all.map((manifest) => ({
      request: `GET /v2/library/app/manifests/${manifest.digest}`,
      answer: manifestAnswer(manifest),
    })),
    ...referrers.map(({digest}) => ({
      request: `HEAD /v2/library/app/manifests/${digest}`,
      optional: true as const,
      answer: {headers: {'Docker-Content-Digest': digest, 'Content-Length': '1'}},
    })),
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  const listed = async () => {
    const {body} = await proxy.ask(`/v2/app/referrers/${one.digest}`);
    return JSON.parse(body.toString()).manifests.map(({digest}: {digest: string}) => digest);
  };
  t.deepEqual(await listed(), []);
  for (const {digest} of all) await proxy.ask(`/v2/app/manifests/${digest}`);
  const before = await listed();
  t.is(before.length, 10);
  damage(
    proxy,
    'delete from referrer; update referrer_list set version = version + 1, amended = version + 1, next_seq = 1',
  );
  t.deepEqual(await listed(), []);
  await reindex(proxy);
  t.deepEqual(await listed(), before);
});

test('its progress rises to the total', async (t) => {
  const {steps} = await reindex(await pulled(t, all));
  t.is(steps.at(-1)?.done, 1);
  t.true(steps.length >= 3);
  t.deepEqual(
    steps.map(({done}) => done),
    steps.map(({done}) => done).sort((a, b) => a - b),
  );
});

test('its signal ends it, and what was done until then is kept', async (t) => {
  const proxy = await pulled(t, all);
  const before = await rowsOf(proxy, subjects);
  damage(proxy, 'delete from referrer; delete from referrer_list');
  const commands = await proxy.server.commands();
  const enough = new AbortController();
  const reason = new Error('enough');
  const steps: ReindexProgress[] = [];
  const work = commands.reindex({
    signal: enough.signal,
    progress(step) {
      steps.push(step);
      enough.abort(reason);
    },
  });
  t.is(await t.throwsAsync(work), reason);
  t.is(steps.length, 1);
  const found = (await rowsOf(proxy, subjects)).flat().length;
  t.true(found > 0 && found < 30);
  t.like(steps, [{edges: found}]);
  await reindex(proxy);
  t.deepEqual(await rowsOf(proxy, subjects), before);
});
