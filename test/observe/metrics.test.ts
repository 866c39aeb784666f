import {once} from 'node:events';
import test from 'ava';
import {createEvents} from '../../src/events.ts';
import {createMetrics} from '../../src/observe/metrics.ts';
import {type Backref, createPassingClock, startBackref} from '../support/backref.ts';
import {blobAnswer, headAnswer, imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {descriptorOf, listAnswer, referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream, HANG} from '../support/scripted-upstream.ts';

const blob = randomBlob(3000);
const image = imageManifest([blob]);
const script = [
  {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(image)},
  {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
  {
    request: `GET /v2/library/app/referrers/${image.digest}`,
    answer: listAnswer([descriptorOf(referrerOf(image))]),
  },
];

/** The figures by name and labels, as `name{a="b",c="d"}` with the labels in their order. */
async function figures({ask}: Backref): Promise<Map<string, number>> {
  const {status, headers, body} = await ask('/metrics');
  if (status !== 200 || !headers['content-type']?.startsWith('text/plain'))
    throw new Error(`status ${status}`);
  const lines = body
    .toString()
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(' ');
      const [, name = '', labels] = /^(\w+)(?:\{(.*)\})?$/.exec(line.slice(0, space)) ?? [];
      const sorted = labels
        ?.match(/\w+="[^"]*"/g)
        ?.sort()
        .join(',');
      return [sorted ? `${name}{${sorted}}` : name, Number(line.slice(space + 1))];
    }),
  );
}

/** The names without those of node, which has further ones once it first collects garbage of some kind. */
const ownMetrics = async (proxy: Backref): Promise<string[]> =>
  [...(await figures(proxy)).keys()].filter((name) => name.startsWith('backref_'));

test('a cold pull, a warm pull and a list are counted by outcome', async (t) => {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  for (const path of ['manifests/1', 'manifests/1', `blobs/${blob.digest}`])
    await proxy.ask(`/v2/app/${path}`);
  await proxy.idle();
  await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  await proxy.ask(`/v2/app/referrers/${image.digest}`);
  const found = await figures(proxy);
  const expected = {
    'backref_served_total{kind="manifest",outcome="miss",registry="docker.io"}': 1,
    'backref_served_total{kind="manifest",outcome="hit",registry="docker.io"}': 1,
    'backref_served_total{kind="blob",outcome="miss",registry="docker.io"}': 1,
    'backref_served_total{kind="blob",outcome="hit",registry="docker.io"}': 1,
    'backref_served_total{kind="referrers",outcome="miss",registry="docker.io"}': 1,
    'backref_requests_total{method="GET",registry="docker.io",status="200"}': 5,
    'backref_fills_total{result="stored"}': 1,
    backref_fill_bytes_total: 3000,
    [`backref_upstream_requests_total{host="${upstream.host}",method="GET",status="200"}`]: 3,
    [`backref_upstream_seconds_count{host="${upstream.host}"}`]: 3,
    [`backref_referrers_capability_total{capability="supported",host="${upstream.host}"}`]: 1,
  };
  for (const [name, value] of Object.entries(expected)) t.is(found.get(name), value, name);
});

test('an upstream that cannot be asked is counted by how it fails', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  await upstream.stop();
  t.is((await proxy.ask('/v2/app/manifests/1')).status, 503);
  const found = await figures(proxy);
  t.is(found.get(`backref_upstream_failures_total{host="${upstream.host}",kind="unreachable"}`), 1);
  t.is(found.get('backref_requests_total{method="GET",registry="docker.io",status="503"}'), 1);
});

test('no label holds a client’s text, so their number is bounded', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: /./, answer: {status: 404}, always: true}]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  for (const path of ['/v2/app/tags/list', '/nowhere', '/metrics']) await proxy.ask(path);
  const before = (await ownMetrics(proxy)).length;
  for (let turn = 0; turn < 20; turn++) {
    await proxy.ask(`/v2/secret-${turn}/tags/list?x=secret-${turn}`);
    await proxy.ask(`/v2/unknown-${turn}.example/app/tags/list?ns=secret-${turn}`);
    await proxy.ask(`/secret-${turn}`, {method: turn % 2 === 0 ? 'PROPFIND' : 'LOCK'});
  }
  const {body} = await proxy.ask('/metrics');
  t.notRegex(body.toString(), /secret|unknown-|PROPFIND|LOCK/);
  const after = (await ownMetrics(proxy)).length;
  t.true(after - before < 12, `${after - before} further figures`);
});

test('a request is timed by kind and outcome', async (t) => {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  const paths = [
    'app/manifests/1',
    'app/manifests/1',
    `app/blobs/${blob.digest}`,
    `app/referrers/${image.digest}`,
    'app/manifests/NO!',
    '',
  ];
  for (const path of paths) await proxy.ask(`/v2/${path}`);
  await proxy.idle();
  const found = await figures(proxy);
  for (const labels of [
    'kind="manifest",outcome="miss"',
    'kind="manifest",outcome="hit"',
    'kind="blob",outcome="miss"',
    'kind="referrers",outcome="miss"',
    'kind="manifest",outcome="refused"',
    'kind="ping",outcome="done"',
  ])
    t.is(found.get(`backref_request_seconds_count{${labels}}`), 1, labels);
});

test('running requests and downloads are counted until they end', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: script[1]?.request ?? '',
      answer: {headers: {'content-length': '3000'}, body: [blob.bytes.subarray(0, 1000), HANG]},
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: createPassingClock()});
  const idle = await figures(proxy);
  t.is(idle.get('backref_requests_in_flight'), 1);
  t.is(idle.get('backref_fills_in_flight'), 0);
  const message = await proxy.open(`/v2/app/blobs/${blob.digest}`);
  const busy = await figures(proxy);
  t.is(busy.get('backref_requests_in_flight'), 2);
  t.is(busy.get('backref_fills_in_flight'), 1);
  const ended = once(proxy.server.events, 'request.end');
  message.destroy();
  await ended;
  t.is((await figures(proxy)).get('backref_requests_in_flight'), 1);
});

test('an incomplete body counts as far as it was sent, and a HEAD by its headers', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: script[1]?.request ?? '',
      answer: {headers: {'content-length': '3000000'}, body: [Buffer.alloc(1000), HANG]},
    },
    {request: 'HEAD /v2/library/app/manifests/1', answer: headAnswer(image)},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  const message = await proxy.open(`/v2/app/blobs/${blob.digest}`);
  await once(message, 'data');
  const ended = once(proxy.server.events, 'request.end');
  message.destroy();
  await ended;
  const name = 'backref_response_bytes_total{registry="docker.io"}';
  const cut = (await figures(proxy)).get(name) ?? 0;
  t.true(cut > 1000 && cut < 3000, String(cut));
  const head = await proxy.ask('/v2/app/manifests/1', {method: 'HEAD'});
  t.is(head.body.length, 0);
  const added = ((await figures(proxy)).get(name) ?? 0) - cut;
  t.true(added > 100 && added < 1000, String(added));
});

test('there are metrics of stored and free bytes, the build and the process', async (t) => {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  t.is((await figures(proxy)).get('backref_stored_bytes'), 0);
  for (const path of ['manifests/1', `blobs/${blob.digest}`, `referrers/${image.digest}`])
    await proxy.ask(`/v2/app/${path}`);
  await proxy.idle();
  proxy.clock.move(60_000);
  // This one sees to a new count, and does not wait for it.
  await proxy.ask('/metrics');
  const found = await figures(proxy);
  t.is(found.get('backref_stored_bytes'), 3000);
  t.true((found.get('backref_free_bytes') ?? 0) > 0);
  const names = [...found.keys()];
  t.true(names.some((name) => /^backref_build_info\{node="\d+\..*",version="\d+\..*"\}$/.test(name)));
  for (const name of [
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'nodejs_eventloop_lag_p99_seconds',
  ])
    t.true(found.has(name), name);
});

test('each metric is named once, even with two servers in one process', async (t) => {
  const proxies = [await startBackref(t, {registries: [{}]}), await startBackref(t, {registries: [{}]})];
  for (const proxy of proxies) {
    const {body} = await proxy.ask('/metrics');
    const types = body.toString().match(/^# TYPE \S+/gm) ?? [];
    t.is(new Set(types).size, types.length);
    t.true(types.length > 40);
  }
});

test('two servers in one process have separate metrics', async (t) => {
  const [one, two] = [await createScriptedUpstream(t, script.slice(0, 1)), await createScriptedUpstream(t)];
  const asked = await startBackref(t, {registries: [{url: one.url}]});
  const idle = await startBackref(t, {registries: [{url: two.url}]});
  await asked.ask('/v2/app/manifests/1');
  const served = 'backref_served_total{kind="manifest",outcome="miss",registry="docker.io"}';
  t.is((await figures(asked)).get(served), 1);
  t.is((await figures(idle)).get(served), undefined);
});

test('a redirect host has the label other, unless it is configured', async (t) => {
  const storage = await createScriptedUpstream(t, [
    {request: 'GET /blob', answer: blobAnswer(blob)},
    {request: 'GET /blob', answer: blobAnswer(blob)},
  ]);
  const away = {status: 307, headers: {location: `${storage.url}/blob`}};
  for (const [label, redirectHosts] of [
    ['other', []],
    [storage.host, [storage.host]],
  ] as const) {
    const upstream = await createScriptedUpstream(t, [
      {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: away},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: {redirectHosts}}]});
    await proxy.ask(`/v2/app/blobs/${blob.digest}`);
    await proxy.idle();
    const found = await figures(proxy);
    const hosts = [...found.keys()].flatMap(
      (key) => /^backref_upstream_requests_total.*host="([^"]*)"/.exec(key)?.[1] ?? [],
    );
    t.deepEqual(hosts.sort(), [upstream.host, label].sort());
  }
});

test('the first answer has the limit of the cache', async (t) => {
  const usage = {blobs: 1, spools: 2, quarantine: 3, database: 4, reserved: 5, limit: 6};
  const metrics = createMetrics(createEvents(), {
    version: '1.2.3',
    handOver: async () => {},
    openConnections: () => 0,
    requestsInFlight: () => 0,
    fillsInFlight: () => 0,
    storedBytes: async () => 0,
    freeBytes: async () => 0,
    cache: async () => usage,
    damagedLocalBlobs: () => 0,
    isMetadataWritable: () => true,
  });
  t.regex(await metrics.text(), /^backref_cache_limit_bytes 6$/m);
});
