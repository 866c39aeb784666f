import test, {type ExecutionContext} from 'ava';
import {type Backref, startBackref} from '../../support/backref.ts';
import {headAnswer, type ManifestContent, manifestAnswer, plainManifest} from '../../support/content.ts';
import {
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';

const MINUTE = 60_000;
const MANIFESTS = '/v2/library/app/manifests';
const PATH = '/v2/app/manifests/1';
const TAGS = '/v2/app/tags/list';
const older = plainManifest();
const newer = plainManifest();

const get = (reference: string, answer: ScriptedAnswer): Expectation => ({
  request: `GET ${MANIFESTS}/${reference}`,
  answer,
});
const head = (reference: string, answer: ScriptedAnswer): Expectation => ({
  request: `HEAD ${MANIFESTS}/${reference}`,
  answer,
});
const list = (...tags: string[]): ScriptedAnswer => ({
  headers: {'Content-Type': 'application/json'},
  body: JSON.stringify({name: 'library/app', tags}),
});
const listing = (answer: ScriptedAnswer): Expectation => ({
  request: 'GET /v2/library/app/tags/list?n=1000',
  answer,
});

/** An answer that waits until it is released. */
function late(answer: ScriptedAnswer) {
  const {promise, resolve} = Promise.withResolvers<void>();
  return {answer: {...answer, before: promise}, letGo: resolve};
}

async function start(t: ExecutionContext, script: Expectation[]) {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  return {upstream, proxy: await startBackref(t, {registries: [upstream]})};
}

/** Asks the upstream for all tags, and where each of them points. */
async function walk(proxy: Backref): Promise<void> {
  const commands = await proxy.server.commands();
  const {signal} = new AbortController();
  const result = await commands.index({repository: 'library/app', budget: 10, signal, progress: () => {}});
  if (!result.complete) throw new Error(`the walk ended early: ${JSON.stringify(result)}`);
}

async function pointsAt(t: ExecutionContext, proxy: Backref, manifest: ManifestContent): Promise<void> {
  const got = await proxy.ask(PATH);
  t.is(got.headers['docker-content-digest'], manifest.digest);
  t.deepEqual(got.body, manifest.bytes);
  t.regex(String(got.headers['cache-status']), /^backref;hit/);
}

for (const [what, answer] of [
  ['the tag as it was before', manifestAnswer(older)],
  ['that there is no such tag', {status: 404}],
] as const) {
  test(`a slow GET that says ${what} does not move the tag back, and its client gets the later answer`, async (t) => {
    const slow = late(answer);
    const {proxy, upstream} = await start(t, [
      get('1', slow.answer),
      head('1', headAnswer(newer)),
      get(newer.digest, manifestAnswer(newer)),
    ]);
    const first = proxy.ask(PATH);
    await upstream.received(1);
    proxy.clock.move(1000);
    await proxy.ask(PATH, {method: 'HEAD'});
    await proxy.ask(`/v2/app/manifests/${newer.digest}`);
    slow.letGo();
    const got = await first;
    t.is(got.status, 200);
    t.deepEqual(got.body, newer.bytes);
    await pointsAt(t, proxy, newer);
  });

  test(`a slow HEAD that says ${what} does not move the tag back`, async (t) => {
    const slow = late('headers' in answer ? headAnswer(older) : answer);
    const {proxy, upstream} = await start(t, [
      get('1', manifestAnswer(older)),
      head('1', slow.answer),
      listing(list('1')),
      head('1', headAnswer(newer)),
      get('1', manifestAnswer(newer)),
    ]);
    await proxy.ask(PATH);
    proxy.clock.move(MINUTE);
    const first = proxy.ask(PATH);
    await upstream.received(2);
    proxy.clock.move(1000);
    await walk(proxy);
    slow.letGo();
    t.deepEqual((await first).body, newer.bytes);
    await pointsAt(t, proxy, newer);
  });
}

test('a slow GET that says that there is no such tag does not hide the one that a later HEAD saw', async (t) => {
  const slow = late({status: 404});
  const {proxy, upstream} = await start(t, [
    get('1', slow.answer),
    head('1', headAnswer(newer)),
    get(newer.digest, manifestAnswer(newer)),
  ]);
  const first = proxy.ask(PATH);
  await upstream.received(1);
  proxy.clock.move(1000);
  await proxy.ask(PATH, {method: 'HEAD'});
  slow.letGo();
  t.deepEqual((await first).body, newer.bytes);
  await pointsAt(t, proxy, newer);
});

test("a tag's age is counted from the request that it was learned by", async (t) => {
  const slow = late(manifestAnswer(older));
  const {proxy, upstream} = await start(t, [get('1', slow.answer), head('1', headAnswer(older))]);
  const first = proxy.ask(PATH);
  await upstream.received(1);
  proxy.clock.move(MINUTE);
  slow.letGo();
  await first;
  t.regex(String((await proxy.ask(PATH)).headers['cache-status']), /detail=unchanged$/);
});

for (const [what, answer] of [
  ['names fewer tags', list('1')],
  ['says that there is no such repository', {status: 404}],
] as const) {
  test(`a slow list that ${what} does not replace the answer to a later question`, async (t) => {
    const slow = late(answer);
    const {proxy, upstream} = await start(t, [
      listing(slow.answer),
      listing(list('1', '2')),
      head('1', {status: 404}),
      head('2', {status: 404}),
    ]);
    const first = proxy.ask(TAGS);
    await upstream.received(1);
    proxy.clock.move(1000);
    await walk(proxy);
    slow.letGo();
    t.like((await first).json(), {tags: ['1', '2']});
    const again = await proxy.ask(TAGS);
    t.like(again.json(), {tags: ['1', '2']});
    t.regex(String(again.headers['cache-status']), /^backref;hit/);
  });
}

test('a pending tag is forgotten when a later answer is kept', async (t) => {
  const between = plainManifest();
  const {proxy} = await start(t, [
    get('1', manifestAnswer(older)),
    head('1', headAnswer(between)),
    listing(list('1')),
    head('1', headAnswer(newer)),
    get('1', manifestAnswer(newer)),
  ]);
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  await proxy.ask(PATH, {method: 'HEAD'});
  proxy.clock.move(1000);
  await walk(proxy);
  const {headers} = await proxy.ask(PATH, {method: 'HEAD'});
  t.is(headers['docker-content-digest'], newer.digest);
  await pointsAt(t, proxy, newer);
});
