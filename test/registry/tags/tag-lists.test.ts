import test, {type ExecutionContext} from 'ava';
import {DAY, type ProxyAnswer, startBackref} from '../../support/backref.ts';
import {
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';

const MINUTE = 60_000;
const PATH = '/v2/app/tags/list';
const FIRST = 'GET /v2/library/app/tags/list?n=1000';

const listAnswer = (tags: readonly string[] | null, link?: string): ScriptedAnswer => ({
  headers: {'Content-Type': 'application/json', ...(link === undefined ? {} : {Link: link})},
  body: JSON.stringify({name: 'library/app', tags}),
});
const listed = (tags: readonly string[] | null): Expectation => ({request: FIRST, answer: listAnswer(tags)});
const tagsOf = ({json}: ProxyAnswer) => (json() as {tags: string[]}).tags;
const codeOf = ({json}: ProxyAnswer) => (json() as {errors: {code: string}[]}).errors[0]?.code;

async function start(t: ExecutionContext, script: Expectation[]) {
  const upstream = await createScriptedUpstream(t, script);
  return {upstream, proxy: await startBackref(t, {registries: [upstream]})};
}

test('all pages of the upstream are merged, deduplicated and sorted by bytes', async (t) => {
  const {proxy} = await start(t, [
    {
      request: FIRST,
      answer: listAnswer(['v2', 'latest'], '</v2/library/app/tags/list?n=1000&last=x>; rel="next"'),
    },
    {request: `${FIRST}&last=x`, answer: listAnswer(['V1', 'latest', '_a'])},
  ]);
  const got = await proxy.ask(PATH);
  t.is(got.status, 200);
  t.deepEqual(got.json(), {name: 'app', tags: ['V1', '_a', 'latest', 'v2']});
  t.is(got.headers['cache-status'], 'backref;fwd=uri-miss;stored;ttl=60');
  t.is(got.headers.age, '0');
  t.is(got.headers['link'], undefined);
});

test('an upstream that ignores last and n is paged here all the same', async (t) => {
  const {proxy} = await start(t, [listed(['c', 'a', 'b', 'd'])]);
  const first = await proxy.ask(`${PATH}?n=2`);
  t.deepEqual(tagsOf(first), ['a', 'b']);
  t.is(first.headers['link'], '</v2/app/tags/list?n=2&last=b>; rel="next"');
  const second = await proxy.ask('/v2/app/tags/list?n=2&last=b');
  t.deepEqual(tagsOf(second), ['c', 'd']);
  t.is(second.headers['link'], undefined);
});

test('following Link from page to page lists every tag once', async (t) => {
  const tags = Array.from({length: 25}, (_, index) => `t${String(index).padStart(2, '0')}`);
  const {proxy} = await start(t, [listed([...tags].reverse())]);
  const seen: string[] = [];
  let path: string | undefined = `${PATH}?n=7`;
  while (path !== undefined) {
    const got: ProxyAnswer = await proxy.ask(path);
    seen.push(...tagsOf(got));
    path = /^<([^>]*)>/.exec(String(got.headers['link']))?.[1];
  }
  t.deepEqual(seen, tags);
});

test("Link and name use the client's naming: prefix, library/, ns", async (t) => {
  const upstream = await createScriptedUpstream(t);
  const other = await createScriptedUpstream(t, [
    {request: 'GET /v2/org/app/tags/list?n=1000', answer: listAnswer(['a', 'b'])},
  ]);
  const proxy = await startBackref(t, {registries: [upstream, {url: other.url, name: 'ghcr.io'}]});
  const prefixed = await proxy.ask('/v2/ghcr.io/org/app/tags/list?n=1');
  t.like(prefixed.json(), {name: 'ghcr.io/org/app'});
  t.is(prefixed.headers['link'], '</v2/ghcr.io/org/app/tags/list?n=1&last=a>; rel="next"');
  t.is(prefixed.headers['oci-namespace'], undefined);
  const byNs = await proxy.ask('/v2/org/app/tags/list?ns=ghcr.io&n=1');
  t.like(byNs.json(), {name: 'org/app'});
  t.is(byNs.headers['link'], '</v2/org/app/tags/list?n=1&last=a&ns=ghcr.io>; rel="next"');
  t.is(byNs.headers['oci-namespace'], 'ghcr.io');
  const twice = await proxy.ask('/v2/ghcr.io/org/app/tags/list?ns=ghcr.io');
  t.like(twice.json(), {name: 'ghcr.io/org/app', tags: ['a', 'b']});
});

test('the Link of a tag that needs escaping leads to the rest', async (t) => {
  const {proxy} = await start(t, [listed(['a&n=0>', 'b'])]);
  const first = await proxy.ask(`${PATH}?n=1`);
  const next = /^<([^>]*)>; rel="next"$/.exec(String(first.headers['link']))?.[1];
  t.deepEqual(tagsOf(await proxy.ask(next ?? '')), ['b']);
});

test('n=0 is an empty list without a Link', async (t) => {
  const {proxy} = await start(t, [listed(['a', 'b'])]);
  const got = await proxy.ask(`${PATH}?n=0`);
  t.deepEqual(tagsOf(got), []);
  t.is(got.headers['link'], undefined);
});

test('an oversized n is clamped', async (t) => {
  const {proxy} = await start(t, [listed(['a', 'b'])]);
  t.deepEqual(tagsOf(await proxy.ask(`${PATH}?n=999999999999999`)), ['a', 'b']);
});

for (const n of ['', '-1', '1.5', 'x', '0x10', '1e3', '%20', '9999999999999999', '١']) {
  test(`n=${n} is 400 and asks no upstream`, async (t) => {
    const {proxy} = await start(t, []);
    const got = await proxy.ask(`${PATH}?n=${encodeURI(n).replaceAll('%25', '%')}`);
    t.is(got.status, 400);
    t.is(codeOf(got), 'UNSUPPORTED');
  });
}

test('last need not be a tag', async (t) => {
  const {proxy} = await start(t, [listed(['a', 'c'])]);
  t.deepEqual(tagsOf(await proxy.ask(`${PATH}?last=b`)), ['c']);
  t.deepEqual(tagsOf(await proxy.ask(`${PATH}?last=%00`)), ['a', 'c']);
  t.deepEqual(tagsOf(await proxy.ask(`${PATH}?last=zz`)), []);
});

test('a list that the upstream gives as null is empty', async (t) => {
  const {proxy} = await start(t, [listed(null)]);
  t.deepEqual((await proxy.ask(PATH)).json(), {name: 'app', tags: []});
});

test('HEAD has the length of the list and no body', async (t) => {
  const {proxy} = await start(t, [listed(['a'])]);
  const head = await proxy.ask(PATH, {method: 'HEAD'});
  t.is(head.status, 200);
  t.is(head.body.length, 0);
  t.is(head.headers['content-length'], String((await proxy.ask(PATH)).body.length));
});

test('within its lifetime a list is served without asking, after it the upstream is asked again', async (t) => {
  const {proxy} = await start(t, [listed(['a']), listed(['a', 'b'])]);
  await proxy.ask(PATH);
  proxy.clock.move(59_000);
  const held = await proxy.ask(PATH);
  t.is(held.headers['cache-status'], 'backref;hit;ttl=1');
  t.is(held.headers.age, '59');
  proxy.clock.move(1000);
  const renewed = await proxy.ask(PATH);
  t.deepEqual(tagsOf(renewed), ['a', 'b']);
  t.is(renewed.headers['cache-status'], 'backref;fwd=stale;stored;ttl=60');
});

test('simultaneous requests share one request to the upstream', async (t) => {
  const wait = Promise.withResolvers<void>();
  const {proxy, upstream} = await start(t, [
    {request: FIRST, answer: {...listAnswer(['a']), before: wait.promise}},
  ]);
  const asked = Array.from({length: 10}, () => proxy.ask(PATH));
  await upstream.received(1);
  // This is answered on a connection that was opened after theirs: by then all ten are waiting.
  await proxy.ask('/v2/');
  wait.resolve();
  const answers = await Promise.all(asked);
  t.true(answers.every((got) => tagsOf(got)[0] === 'a'));
  t.is(answers.filter(({headers}) => /collapsed/.test(String(headers['cache-status']))).length, 9);
});

test('no-cache asks the upstream again, at most once a second', async (t) => {
  const {proxy} = await start(t, [listed(['a']), listed(['a', 'b'])]);
  const headers = {'Cache-Control': 'no-cache'};
  await proxy.ask(PATH);
  t.deepEqual(tagsOf(await proxy.ask(PATH, {headers})), ['a']);
  proxy.clock.move(1000);
  const asked = await proxy.ask(PATH, {headers});
  t.deepEqual(tagsOf(asked), ['a', 'b']);
  t.is(asked.headers['cache-status'], 'backref;fwd=request;stored;ttl=60');
});

for (const status of [429, 500, 503]) {
  test(`while the upstream answers ${status} the last list is served, marked, within maxStale`, async (t) => {
    const {proxy} = await start(t, [listed(['a', 'b']), {request: FIRST, answer: {status}, always: true}]);
    await proxy.ask(PATH);
    proxy.clock.move(DAY);
    const got = await proxy.ask(`${PATH}?n=1`);
    t.is(got.status, 200);
    t.deepEqual(tagsOf(got), ['a']);
    t.regex(String(got.headers.warning), /^299 - "127\.0\.0\.1:\d+: .*; serving the list of \d{4}-/);
    t.regex(String(got.headers['cache-status']), /^backref;fwd=stale;ttl=-86340;detail=(throttled|status)$/);
    t.is(got.headers.age, '86400');
    t.truthy(got.headers['link']);
    proxy.clock.move(6 * DAY + 1);
    t.is((await proxy.ask(PATH)).status, 503);
  });
}

test('with the upstream stopped the last list is served, after a restart too', async (t) => {
  const {proxy, upstream} = await start(t, [listed(['a'])]);
  await proxy.ask(PATH);
  await upstream.stop();
  proxy.clock.move(MINUTE);
  t.deepEqual(tagsOf(await proxy.ask(PATH)), ['a']);
  const again = await proxy.restart();
  const got = await again.ask(PATH);
  t.deepEqual(tagsOf(got), ['a']);
  t.regex(String(got.headers.warning), /^299 - "/);
});

test('without a list a failing upstream is 503 with Retry-After and the reason, never an empty list', async (t) => {
  const {proxy} = await start(t, [{request: FIRST, answer: {status: 500}, times: 4}]);
  const got = await proxy.ask(PATH);
  t.is(got.status, 503);
  t.regex(String(got.headers['retry-after']), /^\d+$/);
  t.is(codeOf(got), 'UNAVAILABLE');
  t.regex(got.body.toString(), /127\.0\.0\.1:\d+: answered 500/);
});

test('a denied repository is 403 DENIED, even when a list of it is here', async (t) => {
  const {proxy} = await start(t, [listed(['a']), {request: FIRST, answer: {status: 403}}]);
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  const got = await proxy.ask(PATH);
  t.is(got.status, 403);
  t.is(codeOf(got), 'DENIED');
});

test('a list that was fetched only partly is neither served nor kept', async (t) => {
  const half = listAnswer(['half'], '</v2/library/app/tags/list?page=2>; rel="next"');
  const SECOND = 'GET /v2/library/app/tags/list?page=2';
  const {proxy} = await start(t, [
    {request: FIRST, answer: half},
    {request: SECOND, answer: {status: 500}, times: 4},
    listed(['whole']),
    {request: FIRST, answer: half},
    {request: SECOND, answer: {status: 404}},
  ]);
  t.is((await proxy.ask(PATH)).status, 503);
  t.deepEqual(tagsOf(await proxy.ask(PATH)), ['whole']);
  proxy.clock.move(MINUTE);
  const got = await proxy.ask(PATH);
  t.deepEqual(tagsOf(got), ['whole']);
  t.regex(String(got.headers.warning), /^299 - "/);
});

test('an unknown repository is NAME_UNKNOWN, remembered for seconds', async (t) => {
  const {proxy} = await start(t, [{request: FIRST, answer: {status: 404}}, listed(['a'])]);
  const got = await proxy.ask(PATH);
  t.is(got.status, 404);
  t.is(codeOf(got), 'NAME_UNKNOWN');
  proxy.clock.move(4999);
  t.is((await proxy.ask(PATH)).status, 404);
  proxy.clock.move(1);
  t.deepEqual(tagsOf(await proxy.ask(PATH)), ['a']);
});

test('no-cache asks again after a second whether an unknown repository exists', async (t) => {
  const {proxy} = await start(t, [{request: FIRST, answer: {status: 404}}, listed(['a'])]);
  const headers = {'Cache-Control': 'no-cache'};
  await proxy.ask(PATH);
  t.is((await proxy.ask(PATH, {headers})).status, 404);
  proxy.clock.move(1000);
  t.deepEqual(tagsOf(await proxy.ask(PATH, {headers})), ['a']);
});

test('the list of a repository that the upstream no longer has is not served in the next outage', async (t) => {
  const {proxy, upstream} = await start(t, [listed(['a']), {request: FIRST, answer: {status: 404}}]);
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  t.is((await proxy.ask(PATH)).status, 404);
  await upstream.stop();
  proxy.clock.move(MINUTE);
  t.is((await proxy.ask(PATH)).status, 503);
  t.is((await (await proxy.restart()).ask(PATH)).status, 503);
});

test('repositories do not share lists', async (t) => {
  const {proxy} = await start(t, [
    listed(['a']),
    {request: 'GET /v2/library/other/tags/list?n=1000', answer: {status: 404}},
  ]);
  await proxy.ask(PATH);
  t.is((await proxy.ask('/v2/other/tags/list')).status, 404);
  t.is((await proxy.ask(PATH)).status, 200);
});
