import {existsSync} from 'node:fs';
import {mkdir, utimes, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {digestOf, encodedOf} from '../../../src/oci/digest.ts';
import {createUploadId} from '../../../src/oci/upload.ts';
import {type Backref, createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {randomBlob} from '../../support/content.ts';

const HOUR = 3_600_000;

/** A server whose hourly work the test starts. */
async function startWithHourlyWork(t: ExecutionContext) {
  const clock = createMovableClock();
  let hourly: (() => void)[] = [];
  const proxy = await startBackref(t, {
    registries: [{library: false}],
    clock: {
      ...clock,
      after(ms, call) {
        if (ms !== HOUR) return clock.after(ms, call);
        hourly.push(call);
        return () => {
          hourly = hourly.filter((other) => other !== call);
        };
      },
    },
  });
  const runHourlyWork = () => {
    const due = hourly;
    hourly = [];
    for (const call of due) call();
  };
  return {proxy, clock, runHourlyWork};
}

/** Leaves a spool, as a killed process does. */
async function leave({folder}: Pick<Backref, 'folder'>, name: string): Promise<string> {
  const path = join(folder, 'spool', name);
  await mkdir(join(folder, 'spool'), {recursive: true});
  await writeFile(path, 'left');
  return path;
}

async function gone(path: string): Promise<void> {
  while (existsSync(path)) await new Promise(setImmediate);
}

const beginning = `sha256-${encodedOf(digestOf(Buffer.from('wanted once')))}.part`;

test('abandoned spools are removed while the server runs', async (t) => {
  const {proxy, clock, runHourlyWork} = await startWithHourlyWork(t);
  const left = [await leave(proxy, beginning), await leave(proxy, `upload-${createUploadId()}.part`)];
  clock.move(DAY + HOUR);
  const young = await leave(proxy, `upload-${createUploadId()}.part`);
  const now = new Date(clock.now());
  await utimes(young, now, now);
  runHourlyWork();
  for (const path of left) await gone(path);
  t.true(existsSync(young));
});

test('abandoned spools are removed at the start', async (t) => {
  const {proxy, clock} = await startWithHourlyWork(t);
  const left = await leave(proxy, `upload-${createUploadId()}.part`);
  clock.move(DAY + HOUR);
  await proxy.restart();
  await gone(left);
  t.pass();
});

test('an upload whose client only asks for its state keeps its bytes', async (t) => {
  const {proxy, clock, runHourlyWork} = await startWithHourlyWork(t);
  const blob = randomBlob(1000);
  const half = blob.bytes.subarray(0, 500);
  const begun = await proxy.ask('/v2/team/app/blobs/uploads/', {
    method: 'POST',
    headers: {'Content-Length': 0},
  });
  const path = String(begun.headers.location);
  await proxy.ask(path, {method: 'PATCH', headers: {'Content-Length': half.length}, body: half});
  const left = await leave(proxy, beginning);
  for (const _ of [1, 2, 3]) {
    clock.move(DAY / 2);
    t.is((await proxy.ask(path)).headers.range, '0-499');
  }
  runHourlyWork();
  await gone(left);

  const rest = blob.bytes.subarray(500);
  const finish = {method: 'PUT', headers: {'Content-Length': rest.length}, body: rest};
  t.is((await proxy.ask(`${path}?digest=${blob.digest}`, finish)).status, 201);
});
