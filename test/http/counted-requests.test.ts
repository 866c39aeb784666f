import test, {type ExecutionContext} from 'ava';
import {type CountedRequests, createEvents} from '../../src/events.ts';
import {createLog, logEvents} from '../../src/observe/log.ts';
import {type Backref, startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer} from '../support/content.ts';
import {SAMPLE_REQUEST} from '../support/sample-request.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {openWay} from './ways.ts';

const image = imageManifest();
const PATH = `/v2/app/manifests/${image.digest}`;

/** A server that has a prepared answer to `text`. */
async function start(t: ExecutionContext) {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${image.digest}`, answer: manifestAnswer(image)},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  const text = `GET ${PATH} HTTP/1.1\r\nHost: 127.0.0.1:${proxy.port}\r\n\r\n`;
  const {ask} = await openWay(t, proxy.port, 'table');
  for (let time = 0; time < 2; time += 1) await ask(text);
  return {proxy, text};
}

const pullsOf = async ({server}: Backref) =>
  (await (await server.commands()).who({digest: image.digest})).pulls.map(({pulls}) => pulls);

test('equal requests that nobody hears of one by one are counted together', async (t) => {
  const {proxy, text} = await start(t);
  const counted: CountedRequests[] = [];
  proxy.server.events.on('requests.counted', (all) => void counted.push(...all));
  const {ask} = await openWay(t, proxy.port, 'front');
  for (let time = 0; time < 5; time += 1) await ask(text);
  t.deepEqual(counted, []);
  await proxy.ask('/metrics');
  const [prepared] = counted;
  t.like(prepared, {
    method: 'GET',
    kind: 'manifest',
    outcome: 'hit',
    digest: image.digest,
    isServedHere: true,
  });
  t.is(prepared?.count, 5);
  t.is(
    [...(prepared?.durations.values() ?? [])].reduce((sum, count) => sum + count, 0),
    5,
  );
});

test('whoever listens to each request hears of each', async (t) => {
  const {proxy, text} = await start(t);
  const urls: string[] = [];
  proxy.server.events.on('request.end', ({url}) => void urls.push(url));
  const {ask} = await openWay(t, proxy.port, 'front');
  for (let time = 0; time < 3; time += 1) await ask(text);
  t.deepEqual(urls, [PATH, PATH, PATH]);
});

test('who pulled what is complete when it is asked for', async (t) => {
  const {proxy, text} = await start(t);
  const {ask} = await openWay(t, proxy.port, 'front');
  for (let time = 0; time < 5; time += 1) await ask(text);
  t.deepEqual(await pullsOf(proxy), [7]);
});

test('nothing that was counted is lost when the server stops', async (t) => {
  const {proxy, text} = await start(t);
  const {ask} = await openWay(t, proxy.port, 'front');
  for (let time = 0; time < 5; time += 1) await ask(text);
  t.deepEqual(await pullsOf(await proxy.restart()), [7]);
});

test('a log of warnings does not listen to each request, and has those that failed', async (t) => {
  const events = createEvents();
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line);
  const log = await createLog({level: 'warn', format: 'json'}, {write, now: Date.now});
  const stop = logEvents(events, log, 'warn');
  t.is(events.listenerCount('request.end'), 0);
  t.is(events.listenerCount('request.start'), 0);
  events.emit('request.trouble', {...SAMPLE_REQUEST, outcome: 'failed', status: 503});
  t.like(JSON.parse(lines[0] ?? ''), {event: 'request.end', level: 'warn', status: 503});
  stop();
  events.emit('request.trouble', {...SAMPLE_REQUEST, outcome: 'failed'});
  t.is(lines.length, 1);
  t.is(events.listenerCount('request.trouble'), 0);
});
