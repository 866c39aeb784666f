import test from 'ava';
import {type Backref, startBackref} from '../support/backref.ts';
import {blobAnswer, imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {descriptorOf, listAnswer, referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

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

test('a pull, a warm pull and a list are counted by what they were', async (t) => {
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

test('no label holds a client’s own text, so that their number is bounded', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: /./, answer: {status: 404}, always: true}]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  await proxy.ask('/v2/app/tags/list');
  const before = (await figures(proxy)).size;
  for (let turn = 0; turn < 20; turn++) {
    await proxy.ask(`/v2/secret-${turn}/tags/list?x=secret-${turn}`);
    await proxy.ask(`/v2/unknown-${turn}.example/app/tags/list?ns=secret-${turn}`);
    await proxy.ask(`/secret-${turn}`, {method: turn % 2 === 0 ? 'PROPFIND' : 'LOCK'});
  }
  const {body} = await proxy.ask('/metrics');
  t.notRegex(body.toString(), /secret|unknown-|PROPFIND|LOCK/);
  const after = (await figures(proxy)).size;
  t.true(after - before < 12, `${after - before} further figures`);
});

test('the figures of one server are not those of another in the same process', async (t) => {
  const [one, two] = [await createScriptedUpstream(t, script.slice(0, 1)), await createScriptedUpstream(t)];
  const asked = await startBackref(t, {registries: [{url: one.url}]});
  const idle = await startBackref(t, {registries: [{url: two.url}]});
  await asked.ask('/v2/app/manifests/1');
  const served = 'backref_served_total{kind="manifest",outcome="miss",registry="docker.io"}';
  t.is((await figures(asked)).get(served), 1);
  t.is((await figures(idle)).get(served), undefined);
});

test('a host that an upstream redirects to is other, unless it is configured', async (t) => {
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
