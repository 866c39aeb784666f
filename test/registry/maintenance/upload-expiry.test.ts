import test, {type ExecutionContext} from 'ava';
import {type Backref, createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {manifestAnswer, plainManifest} from '../../support/content.ts';
import {createScriptedUpstream, type Expectation, HANG} from '../../support/scripted-upstream.ts';

const UPLOADS = '/v2/library/app/blobs/uploads/';

/** The upstream begins sessions with these names, in order. */
const begun = (...names: string[]): Expectation[] =>
  names.map((name) => ({
    request: `POST ${UPLOADS}`,
    answer: {status: 202, headers: {Location: `${UPLOADS}${name}`}},
  }));
const cancelled = (name: string, answer: Expectation['answer'] = {status: 204}): Expectation => ({
  request: `DELETE ${UPLOADS}${name}`,
  answer,
});

async function start(t: ExecutionContext, script: Expectation[], push: 'through' | 'deny' = 'through') {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, push}],
    clock: createMovableClock(),
  });
  const failures: string[] = [];
  proxy.server.events.on('upstream.failed', ({kind}) => void failures.push(kind));
  proxy.server.events.on('upstream.refused', ({reason}) => void failures.push(reason));
  proxy.server.events.on('background.failed', ({task}) => void failures.push(task));
  return {upstream, proxy, failures};
}

async function begin(proxy: Backref): Promise<string> {
  const headers = {'Content-Length': 0};
  return String((await proxy.ask('/v2/app/blobs/uploads/', {method: 'POST', headers})).headers.location);
}

async function collect({server}: Backref) {
  const {signal} = new AbortController();
  return (await server.commands()).collect({grace: DAY, signal, progress: () => {}});
}

test('an expired upload is cancelled at its upstream once', async (t) => {
  const {proxy, upstream, failures} = await start(t, [...begun('one', 'two'), cancelled('one')]);
  const old = await begin(proxy);
  proxy.clock.move(DAY + 1);
  const young = await begin(proxy);
  t.is((await collect(proxy)).uploads, 1);
  t.is((await collect(proxy)).uploads, 0);
  t.is((await proxy.ask(old)).status, 404);
  upstream.expect({request: `GET ${UPLOADS}two`, answer: {status: 204}});
  t.is((await proxy.ask(young)).status, 204);
  t.deepEqual(failures, []);
});

test('an upload that expired while the server was down is cancelled when it starts', async (t) => {
  const {proxy, upstream} = await start(t, [...begun('one'), cancelled('one')]);
  await begin(proxy);
  proxy.clock.move(DAY + 1);
  await proxy.restart();
  await upstream.received(2);
  t.pass();
});

test('an upstream that cannot cancel an upload does not hold up the others', async (t) => {
  const names = ['one', 'two', 'three', 'four', 'five', 'six'];
  const {proxy, failures} = await start(t, [
    ...begun(...names),
    cancelled('one', {status: 500}),
    cancelled('two', {status: 404}),
    cancelled('three', {status: 405}),
    ...['four', 'five', 'six'].map((name) => cancelled(name)),
  ]);
  for (const _ of names) await begin(proxy);
  proxy.clock.move(DAY + 1);
  t.is((await collect(proxy)).uploads, 6);
  t.is(failures.length, 2);
  t.true(failures.includes('status'));
  t.true(failures.some((reason) => reason.includes('refuses to cancel an upload (405)')));
  t.is((await collect(proxy)).uploads, 0);
});

test('an upstream that fails to cancel is skipped after a few failures, and pulls from it continue', async (t) => {
  const names = Array.from({length: 12}, (_, index) => `session-${index}`);
  const manifest = plainManifest();
  const {proxy, failures} = await start(t, [
    ...begun(...names),
    {request: new RegExp(`^DELETE ${UPLOADS}`), answer: {status: 500}, always: true},
    {request: 'GET /v2/library/app/manifests/v1', answer: manifestAnswer(manifest)},
  ]);
  for (const _ of names) await begin(proxy);
  proxy.clock.move(DAY + 1);
  t.is((await collect(proxy)).uploads, names.length);
  t.true(failures.length < 5, `${failures.length} failures`);
  t.is((await proxy.ask('/v2/app/manifests/v1')).status, 200);
});

test('an unanswered cancellation does not keep the server from closing', async (t) => {
  const {proxy, upstream} = await start(t, [...begun('one'), cancelled('one', {before: HANG})]);
  await begin(proxy);
  proxy.clock.move(DAY + 1);
  const next = await proxy.restart();
  await upstream.received(2);
  await next.server.close();
  t.pass();
});

test('an upload whose registry no longer pushes through is ended only here', async (t) => {
  const {proxy, upstream} = await start(t, begun('one'));
  await begin(proxy);
  await proxy.server.close();
  const denying = await startBackref(t, {
    registries: [{url: upstream.url, push: 'deny'}],
    folder: proxy.folder,
    clock: proxy.clock,
  });
  proxy.clock.move(DAY + 1);
  t.is((await collect(denying)).uploads, 1);
});

test('an upload to a repository that is not served any more is ended only here', async (t) => {
  const {proxy, upstream} = await start(t, begun('one'));
  await begin(proxy);
  const repositories = {allow: [], deny: ['library/app']};
  proxy.reload({registries: [{url: upstream.url, push: 'through', repositories}]});
  proxy.clock.move(DAY + 1);
  t.is((await collect(proxy)).uploads, 1);
});
