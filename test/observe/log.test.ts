import {stripVTControlCharacters} from 'node:util';
import test from 'ava';
import type {Config} from '../../src/config.ts';
import {createEvents} from '../../src/events.ts';
import {createLog, logEvents} from '../../src/observe/log.ts';
import {SAMPLE_DIGEST, SAMPLE_REQUEST} from '../support/sample-request.ts';

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

test('a request is one line with its time, level, client and user agent, and the short id last', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  events.emit('request.end', SAMPLE_REQUEST);
  t.is(
    text(),
    `[${TIME}] INFO: GET /v2/app/manifests/latest?ns=docker.io 200 512 B 12 ms backref;hit 10.0.0.7 "containerd/v1.7.2" [r-123456]\n`,
  );
});

test('the line of a request with a body says how much was received', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  events.emit('request.end', {
    ...SAMPLE_REQUEST,
    method: 'PATCH',
    url: '/v2/a',
    outcome: 'done',
    received: 1024,
    bytes: 0,
    client: undefined,
    userAgent: undefined,
    cache: undefined,
  });
  t.is(text(), `[${TIME}] INFO: PATCH /v2/a 200 1024 B in, 0 B 12 ms [r-123456]\n`);
});

test('the format json gives the event with all its facts, and no sentence that repeats them', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'json'});
  const failed = {...SAMPLE_REQUEST, status: 503, outcome: 'failed', reason: 'r.test: timed out'} as const;
  events.emit('request.end', failed);
  t.deepEqual(JSON.parse(text()), {level: 'warn', time: TIME, event: 'request.end', ...failed});
});

test('health checks, pings and scrapes are of interest only when they fail', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  for (const kind of ['probe', 'ping', 'metrics'] as const)
    events.emit('request.end', {...SAMPLE_REQUEST, kind, outcome: 'done'});
  t.is(text(), '');
  events.emit('request.end', {...SAMPLE_REQUEST, kind: 'probe', status: 503, outcome: 'failed'});
  t.regex(text(), /WARN: GET .* 503/);
});

test('a stale response is a warning that says why', async (t) => {
  const {events, text} = await logged({level: 'warn', format: 'pretty'});
  events.emit('request.end', {
    ...SAMPLE_REQUEST,
    outcome: 'stale',
    reason: 'r.test: refused; serving a copy',
  });
  t.regex(text(), /WARN: GET .*: r\.test: refused; serving a copy \[r-123456\]\n$/);
});

test('terminals get colors', async (t) => {
  const lines: string[] = [];
  const deps = {write: (line: string) => void lines.push(line), now: () => Date.parse(TIME), colors: true};
  const log = await createLog({level: 'info', format: 'pretty'}, deps);
  log({level: 'info', event: 'x', text: 'hello', facts: {}});
  t.is(stripVTControlCharacters(lines[0] ?? ''), `[${TIME}] INFO: hello\n`);
  t.not(stripVTControlCharacters(lines[0] ?? ''), lines[0]);
});

test('lines below the level are not written', async (t) => {
  const emitAll = ({events}: Awaited<ReturnType<typeof logged>>) => {
    events.emit('fill.start', {digest: SAMPLE_DIGEST, resumedAt: 0});
    events.emit('request.end', SAMPLE_REQUEST);
    events.emit('request.end', {...SAMPLE_REQUEST, status: 503, outcome: 'failed'});
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
  one.events.emit('request.end', SAMPLE_REQUEST);
  t.is(two.text(), '');
});

/** As an HTTP client's error: the request, headers included, hangs on it. */
const errorWithSecrets = () =>
  Object.assign(new Error('401 for https://me:5318008@r.test with Authorization: Bearer 5318008.x'), {
    options: {headers: {authorization: 'Basic 5318008'}},
    cause: new Error('GET https://cdn.test/blob?X-Amz-Signature=5318008&x=1 failed'),
  });

for (const format of ['pretty', 'json'] as const)
  test(`credentials never reach the log: ${format}`, async (t) => {
    const {events, text} = await logged({level: 'debug', format});
    events.emit('request.fault', {id: SAMPLE_REQUEST.id, error: errorWithSecrets()});
    events.emit('background.failed', {task: 'fill', error: errorWithSecrets()});
    events.emit('upstream.failed', {host: 'r.test', kind: 'token', reason: 'basic 5318008 refused'});
    events.emit('request.end', {...SAMPLE_REQUEST, url: '/v2/?token=5318008'});
    t.notRegex(text(), /5318008/);
    t.regex(text(), format === 'json' ? /"id":"r-123456789"/ : /\[r-123456\]/);
    t.regex(text(), /401 for https:\/\/\[redacted\]@r\.test/);
  });

test('a client cannot forge a line or send control characters to the terminal', async (t) => {
  const {events, text} = await logged({level: 'info', format: 'pretty'});
  const forged = `\n[${TIME}] ERROR: forged\u001b[31m\u0085`;
  events.emit('request.end', {...SAMPLE_REQUEST, url: `/v2/${forged}`, userAgent: forged});
  t.deepEqual(
    text()
      .split('\n')
      .map((line) => line.startsWith(`[${TIME}]`)),
    [true, false, false, false],
  );
  t.true(text().includes('\\x1b[31m\\x85'));
});

test('the line of the check after a start says what was found, and whether the time was enough', async (t) => {
  const {events, text} = await logged({level: 'debug', format: 'pretty'});
  const nothing = {
    blobs: 7,
    copies: 0,
    local: 0,
    deletions: 0,
    unrecorded: 0,
    spoolBytes: 0,
    isComplete: true,
  };
  events.emit('store.checked', nothing);
  events.emit('store.checked', {...nothing, deletions: 2, isComplete: false});
  events.emit('store.checked', {...nothing, copies: 3, local: 1, unrecorded: 4, spoolBytes: 5});
  const line = `[${TIME}] LEVEL: checked 7 blobs after the start, looking for what a crash left: `;
  t.deepEqual(text().trimEnd().split('\n'), [
    `${line.replace('LEVEL', 'DEBUG')}nothing`,
    `${line.replace('LEVEL', 'INFO')}deletions, which were ended: 2. The time was over before everything was looked at: the scrub does the rest`,
    `${line.replace('LEVEL', 'WARN')}lost copies, which the next pulls fetch again: 3; lost blobs that were pushed here: 1; files without a row, which garbage collection removes: 4; partial downloads and uploads: 5 B`,
  ]);
});
