import test, {type ExecutionContext} from 'ava';
import {LINES} from '../../src/observe/lines.ts';
import {type Backref, startBackref} from '../support/backref.ts';
import {blobAnswer, headAnswer, imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {descriptorOf, listAnswer, referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {openWay, shared, WAYS, type Way} from './ways.ts';

const image = imageManifest();
const [blob, middle, large] = [randomBlob(1024), randomBlob(64 * 1024), randomBlob(1024 * 1024)];
/** Not held in memory. */
const stored = randomBlob(3 * 1024 * 1024 + 1);
const referrers = Array.from({length: 10}, () => referrerOf(image));
const TAG = '/v2/app/manifests/1';
const DIGEST = `/v2/app/manifests/${image.digest}`;
const BLOB = `/v2/app/blobs/${blob.digest}`;
const LIST = `/v2/app/referrers/${image.digest}`;
const TYPE = encodeURIComponent('application/vnd.example.sbom');

const CASES: [title: string, method: 'GET' | 'HEAD', target: string, fields?: string][] = [
  ['a manifest by digest', 'GET', DIGEST],
  ['a manifest by fresh tag', 'GET', TAG],
  ['HEAD of a manifest by digest', 'HEAD', DIGEST],
  ['HEAD of a manifest by tag', 'HEAD', TAG],
  ['a manifest that the client has', 'GET', DIGEST, `If-None-Match: "${image.digest}"\r\n`],
  ['a tag whose manifest the client has', 'GET', TAG, `If-None-Match: W/"${image.digest}"\r\n`],
  ['HEAD of a manifest that the client has', 'HEAD', TAG, `If-None-Match: *\r\n`],
  ['a manifest of which the client has another version', 'GET', TAG, 'If-None-Match: "a"\r\n'],
  ['a manifest of a registry that is named', 'GET', `${DIGEST}?ns=docker.io`],
  ['a small blob', 'GET', BLOB],
  ['HEAD of a small blob', 'HEAD', BLOB],
  ['a blob that the client has', 'GET', BLOB, `If-None-Match: "${blob.digest}"\r\n`],
  ['the largest blob that is written in one piece', 'GET', `/v2/app/blobs/${middle.digest}`],
  ['the largest blob that is prepared', 'GET', `/v2/app/blobs/${large.digest}`],
  ['a blob that is given from its file', 'GET', `/v2/app/blobs/${stored.digest}`],
  ['HEAD of a blob that lies in a file', 'HEAD', `/v2/app/blobs/${stored.digest}`],
  [
    'a blob in a file that the client has',
    'GET',
    `/v2/app/blobs/${stored.digest}`,
    `If-None-Match: "${stored.digest}"\r\n`,
  ],
  ['a list of referrers', 'GET', LIST],
  ['HEAD of a list of referrers', 'HEAD', LIST],
  ['a filtered list of referrers', 'GET', `${LIST}?artifactType=${TYPE}&artifactType=`],
  [
    'what many clients send',
    'GET',
    TAG,
    'User-Agent: a "b"\r\nAccept: a/b\r\nAccept: c/d\r\nAccept-Encoding: gzip\r\n',
  ],
  ['the API itself', 'GET', '/v2/'],
  ['HEAD of the API itself', 'HEAD', '/v2/'],
  ['a client that keeps its connection', 'GET', DIGEST, 'connection: Keep-Alive\r\n'],
];

async function start(t: ExecutionContext): Promise<Backref> {
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(image), always: true},
      {request: 'HEAD /v2/library/app/manifests/1', answer: headAnswer(image), always: true, optional: true},
      {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob), optional: true},
      {request: `GET /v2/library/app/blobs/${middle.digest}`, answer: blobAnswer(middle), optional: true},
      {request: `GET /v2/library/app/blobs/${large.digest}`, answer: blobAnswer(large), optional: true},
      {request: `GET /v2/library/app/blobs/${stored.digest}`, answer: blobAnswer(stored), optional: true},
      {
        request: `GET /v2/library/app/referrers/${image.digest}`,
        answer: listAnswer(referrers.map(descriptorOf)),
        optional: true,
      },
    ],
    {anyOrder: true},
  );
  return startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
}

/** Everything that the server reports of this target from now on, without what differs each time. */
function record({server: {events}}: Backref, target: string): unknown[] {
  const heard: unknown[] = [];
  for (const name of Object.keys(LINES) as (keyof typeof LINES)[])
    events.on(name, (...all: unknown[]) => {
      const facts = all[0] as {url?: string};
      if ((facts.url ?? target) === target) heard.push([name, {...facts, id: undefined}]);
    });
  return heard;
}

/** What other tests on this disk change, and the requests for the metrics themselves, which are counted when they have ended. */
const UNRELATED = /_free_bytes|_limit_bytes|_cache_bytes|kind="metrics"|response_bytes_total\{registry=""\}/;

/** What the counters of the metrics say, by their names and labels. */
async function counted({ask}: Backref): Promise<Map<string, number>> {
  const {body} = await ask('/metrics');
  const lines = body.toString().matchAll(/^(backref_\S+) (\S+)$/gm);
  const all = [...lines].map(([, name = '', value]): [string, number] => [name, Number(value)]);
  return new Map(all.filter(([name]) => !UNRELATED.test(name)));
}

async function differences(proxy: Backref, work: () => Promise<void>): Promise<[string, number][]> {
  const before = await counted(proxy);
  await work();
  const after = await counted(proxy);
  return [...after]
    .map(([name, value]): [string, number] => [name, value - (before.get(name) ?? 0)])
    .filter(([, change]) => change !== 0);
}

for (const [title, method, target, fields = ''] of CASES) {
  test(`${title}: the same bytes, reports and metrics, whichever way it is answered`, async (t) => {
    const proxy = await start(t);
    const text = `${method} ${target} HTTP/1.1\r\nHost: 127.0.0.1:${proxy.port}\r\n${fields}\r\n`;
    for (const path of [TAG, ...(target === TAG ? [] : [target])]) await proxy.ask(path);
    await proxy.idle();
    proxy.clock.move(1500);
    // Prepares it, where nothing has yet.
    for (let time = 0; time < 3; time += 1) await (await openWay(t, proxy.port, 'table')).ask(text);
    // Unless somebody hears of each request, equal ones are counted together.
    const unheard = new Map<Way, unknown>();
    for (const way of WAYS) {
      const {ask} = await openWay(t, proxy.port, way);
      unheard.set(
        way,
        await differences(proxy, async () => {
          for (let time = 0; time < 3; time += 1) await ask(text);
          await new Promise(setImmediate);
        }),
      );
    }
    t.deepEqual(unheard.get('table'), unheard.get('ordinary'));
    t.deepEqual(unheard.get('front'), unheard.get('ordinary'));
    const heard = record(proxy, target);
    const seen = new Map<Way, unknown>();
    for (const way of WAYS) {
      const {ask} = await openWay(t, proxy.port, way);
      heard.length = 0;
      let answer = '';
      const metrics = await differences(proxy, async () => {
        heard.length = 0;
        answer = await ask(text);
        await new Promise(setImmediate);
      });
      seen.set(way, {answer: shared(answer), reports: [...heard], metrics});
    }
    t.deepEqual(seen.get('table'), seen.get('ordinary'));
    t.deepEqual(seen.get('front'), seen.get('ordinary'));
    const {answer} = seen.get('front') as {answer: string};
    t.regex(answer, /^HTTP\/1\.1 (?:200|304) /);
    if (target !== '/v2/') t.regex(answer, /Cache-Status: backref;hit/);
  });
}
