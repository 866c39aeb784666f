import {rename} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {startBackref} from '../support/backref.ts';

const registries = [{url: 'http://127.0.0.1:9'}];
const READY = {server: 'backref', status: 'ready', problems: [], damagedLocalBlobs: 0};

test('/healthz and /readyz answer outside /v2/, whatever registry the request names', async (t) => {
  const {ask} = await startBackref(t, {registries});
  for (const headers of [{}, {Host: 'nowhere.example'}]) {
    const [alive, ready] = [await ask('/healthz', {headers}), await ask('/readyz', {headers})];
    t.is(alive.status, 200);
    t.deepEqual(alive.json(), {server: 'backref', status: 'alive'});
    t.is(ready.status, 200);
    t.deepEqual(ready.json(), READY);
    t.is(ready.headers['cache-control'], 'no-store');
  }
  t.like(await ask('/readyz', {method: 'HEAD'}), {status: 200, body: Buffer.alloc(0)});
  t.is((await ask('/readyz', {method: 'POST'})).status, 405);
});

test('without its blob store a server is alive and not ready, until the store is back', async (t) => {
  const {ask, clock, folder, server} = await startBackref(t, {registries});
  const reasons: (string | undefined)[] = [];
  server.events.on('request.end', ({kind, reason}) => void (kind === 'probe' && reasons.push(reason)));
  const [blobs, elsewhere] = [join(folder, 'blobs'), join(folder, 'unmounted')];
  await rename(blobs, elsewhere);
  const problem = 'the blob store is missing or cannot be read';
  const answer = await ask('/readyz');
  t.is(answer.status, 503);
  t.deepEqual(answer.json(), {...READY, status: 'not ready', problems: [problem]});
  t.is((await ask('/healthz')).status, 200);
  await rename(elsewhere, blobs);
  clock.move(1000);
  t.deepEqual((await ask('/readyz')).json(), READY);
  t.deepEqual(reasons, [problem, undefined, undefined]);
});
