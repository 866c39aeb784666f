import test from 'ava';
import type {Config} from '../../src/config.ts';
import {createEvents} from '../../src/events.ts';
import {createLog, logEvents} from '../../src/observe/log.ts';
import {digestOf} from '../../src/oci/digest.ts';

const DIGEST = digestOf(Buffer.from('hello'));
const TIME = '2026-01-02T03:04:05.678Z';

async function logged(config: Config['log']) {
  const events = createEvents();
  let text = '';
  const write = (lines: string) => {
    text += lines;
  };
  logEvents(events, await createLog(config, {write, now: () => Date.parse(TIME)}));
  return {events, text: () => text};
}

const REQUEST = {
  id: 'r-1',
  method: 'GET',
  url: '/v2/app/manifests/latest?ns=docker.io',
  status: 200,
  ms: 12.4,
  received: 0,
  bytes: 512,
  registry: 'docker.io',
  cache: 'backref;hit',
};

test('a request is one line with its time, level and id', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  events.emit('request.end', REQUEST);
  t.is(text(), `${TIME} info  [r-1] GET /v2/app/manifests/latest?ns=docker.io 200 512 B 12 ms backref;hit\n`);
});

test('the line of a request with a body tells how much of it came', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  events.emit('request.end', {
    ...REQUEST,
    method: 'PATCH',
    url: '/v2/a',
    received: 1024,
    bytes: 0,
    cache: undefined,
  });
  t.is(text(), `${TIME} info  [r-1] PATCH /v2/a 200 1024 B in, 0 B 12 ms\n`);
});

test('the format json gives the event with all its facts', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'json'});
  events.emit('request.end', REQUEST);
  const {msg, ...entry} = JSON.parse(text());
  t.deepEqual(entry, {level: 'info', time: TIME, event: 'request.end', ...REQUEST});
  t.regex(msg, /^GET .* 200/);
});

test('what is below the level is not written', async (t) => {
  const emitAll = ({events}: Awaited<ReturnType<typeof logged>>) => {
    events.emit('fill.start', {digest: DIGEST, resumedAt: 0});
    events.emit('request.end', REQUEST);
    events.emit('request.end', {...REQUEST, status: 503});
    events.emit('request.fault', {id: 'r-2', error: new Error('bug')});
  };
  const counts: Record<string, number> = {};
  for (const level of ['debug', 'info', 'warn', 'error', 'silent'] as const) {
    const log = await logged({level, format: 'pretty'});
    emitAll(log);
    counts[level] = log.text().match(new RegExp(TIME, 'g'))?.length ?? 0;
  }
  t.deepEqual(counts, {debug: 4, info: 3, warn: 2, error: 1, silent: 0});
});

test('two servers do not write into the log of each other', async (t) => {
  const one = await logged({level: 'info', format: 'pretty'});
  const two = await logged({level: 'info', format: 'pretty'});
  one.events.emit('request.end', REQUEST);
  t.is(two.text(), '');
});

/** As an HTTP client's error: the request, headers included, hangs on it. */
const talkative = () =>
  Object.assign(new Error('401 for https://me:5318008@r.test with Authorization: Bearer 5318008.x'), {
    options: {headers: {authorization: 'Basic 5318008'}},
    cause: new Error('GET https://cdn.test/blob?X-Amz-Signature=5318008&x=1 failed'),
  });

for (const format of ['pretty', 'json'] as const)
  test(`credentials never reach the log: ${format}`, async (t) => {
    const {events, text} = await logged({level: 'debug', format});
    events.emit('request.fault', {id: 'r-1', error: talkative()});
    events.emit('background.failed', {task: 'fill', error: talkative()});
    events.emit('upstream.failed', {host: 'r.test', kind: 'token', reason: 'basic 5318008 refused'});
    events.emit('request.end', {...REQUEST, url: '/v2/?token=5318008'});
    t.notRegex(text(), /5318008/);
    t.regex(text(), /r-1/);
    t.regex(text(), /401 for https:\/\/\[redacted\]@r\.test/);
  });

test('a client cannot forge a line or speak to the terminal', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  events.emit('request.end', {...REQUEST, url: `/v2/\n${TIME} error forged\u001b[31m\u0085`});
  t.deepEqual(
    text()
      .split('\n')
      .map((line) => line.startsWith(TIME)),
    [true, false, false],
  );
  t.true(text().includes('\\x1b[31m\\x85'));
});
