import {mkdir, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createEvents, type EventMap} from '../../src/events.ts';
import {createAuditLog} from '../../src/observe/audit.ts';
import {createManualClock} from '../support/clock.ts';
import {start} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';
import {SAMPLE_DIGEST, SAMPLE_REQUEST} from '../support/sample-request.ts';

async function setUp(t: ExecutionContext, {maxSize = 2 ** 20, keep = 2, path = 'audit.log'} = {}) {
  const folder = await createFolder(t);
  const file = join(folder, path);
  const events = createEvents();
  const clock = createManualClock(Date.UTC(2030, 0, 1));
  const failures: EventMap['audit.failed'][0][] = [];
  events.on('audit.failed', (failure) => void failures.push(failure));
  const audit = createAuditLog({to: file, maxSize, keep}, {events, clock, print: () => t.fail()});
  t.teardown(() => audit.close());
  const lines = async () =>
    (await readFile(file, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  return {folder, file, events, clock, audit, failures, lines};
}

test('a line says who asked for what, from where, and what became of it', async (t) => {
  const {events, audit, lines} = await setUp(t);
  events.emit('request.end', SAMPLE_REQUEST);
  await audit.close();
  t.deepEqual(await lines(), [
    {
      event: 'audit',
      time: '2030-01-01T00:00:00.000Z',
      id: 'r-123456789',
      caller: 'user:alice',
      address: '10.0.0.7',
      action: 'pull',
      method: 'GET',
      path: '/v2/app/manifests/latest',
      registry: 'docker.io',
      repository: 'library/app',
      digest: SAMPLE_DIGEST,
      status: 200,
      outcome: 'hit',
      bytes: 512,
      received: 0,
      userAgent: 'containerd/v1.7.2',
    },
  ]);
});

test('probes and metrics are not recorded, and nothing is after the end', async (t) => {
  const {events, audit, lines} = await setUp(t);
  for (const kind of ['ping', 'metrics', 'probe', 'blob'] as const)
    events.emit('request.end', {...SAMPLE_REQUEST, kind, id: kind});
  await audit.close();
  events.emit('request.end', SAMPLE_REQUEST);
  t.deepEqual(
    (await lines()).map(({id}) => id),
    ['blob'],
  );
});

test('a full file makes room for the next one, and only so many are kept', async (t) => {
  const {folder, events, audit} = await setUp(t, {maxSize: 1000, keep: 2});
  for (let index = 0; index < 40; index++) events.emit('request.end', {...SAMPLE_REQUEST, id: `r-${index}`});
  await audit.close();
  t.deepEqual((await readdir(folder)).sort(), ['audit.log', 'audit.log.1', 'audit.log.2']);
  t.true((await readFile(join(folder, 'audit.log.1'), 'utf8')).length < 2000);
});

test('what cannot be written is counted and reported, and the file is opened again', async (t) => {
  const {folder, events, clock, failures, audit, lines} = await setUp(t, {path: 'logs/audit.log'});
  // A file is where the folder of the log should be.
  await writeFile(join(folder, 'logs'), '');
  events.emit('request.end', SAMPLE_REQUEST);
  await clock.sleeping();
  events.emit('request.end', SAMPLE_REQUEST);
  await rm(join(folder, 'logs'));
  await mkdir(join(folder, 'logs'));
  await clock.advance(10_000);
  t.is(failures.length, 1);
  t.is(failures[0]?.lost, 2);
  t.regex(String(failures[0]?.error), /ENOTDIR|EEXIST/);
  events.emit('request.end', {...SAMPLE_REQUEST, id: 'after'});
  await audit.close();
  t.deepEqual(
    (await lines()).map(({id}) => id),
    ['after'],
  );
});

test('serve writes the audit log, complete when it has ended', async (t) => {
  const cwd = await createFolder(t);
  const env = {BACKREF_LISTEN_HOST: '127.0.0.1', BACKREF_LISTEN_PORT: '0', BACKREF_AUDIT_TO: 'audit.log'};
  await writeFile(join(cwd, 'f.yaml'), 'registries: {apps.local: {default: true}}');
  const server = start(t, ['serve', '--config', 'f.yaml'], {cwd, env});
  const [, url] = await server.prints(/listens on (http:\/\/127\.0\.0\.1:\d+)/);
  t.is((await fetch(`${url}/v2/team/app/manifests/1`)).status, 404);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
  const entry = JSON.parse(await readFile(join(cwd, 'audit.log'), 'utf8'));
  t.like(entry, {event: 'audit', caller: 'anonymous', action: 'pull', repository: 'team/app', status: 404});
});
