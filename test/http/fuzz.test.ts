import {mkdir, readdir} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {askBehindSpoilingUpstream} from '../../fuzz/answers.ts';
import {ANSWER_KINDS, image, type Statuses, sendRequests, startMoodyUpstream} from '../../fuzz/requests.ts';
import {startFuzzedServer} from '../../fuzz/server-process.ts';
import {startSpoilingUpstream} from '../../fuzz/spoiling-upstream.ts';
import {createFolder} from '../support/folder.ts';
import {connectRaw, type RawAnswer} from '../support/raw-http.ts';

const SEED = 20_300_101;
const CONNECTIONS = 8;
/** Requests of one half on one connection: 2 × 8 × 1,300 in all. */
const REQUESTS = 1300;
/** How many bytes the heap may grow in the second half: enough for caches, far too few to keep each request's state. */
const GROWTH = 640 * CONNECTIONS * REQUESTS;

test('20,800 mutated requests: no fault, no growth of memory, nothing outside the store', async (t) => {
  const folder = await createFolder(t);
  const [store, cwd] = [join(folder, 'store'), join(folder, 'cwd')];
  await mkdir(cwd);
  const upstream = await startMoodyUpstream(SEED);
  t.teardown(upstream.close);
  const {port, report, kill} = await startFuzzedServer({upstream: upstream.url, store, cwd});
  t.teardown(kill);
  const statuses: Statuses = new Map();
  const half = (number: number) =>
    sendRequests({
      port,
      seed: SEED + number * CONNECTIONS,
      connections: CONNECTIONS,
      requests: REQUESTS,
      statuses,
    });

  await half(0);
  const {heap: before} = await report();
  await half(1);
  const {heap: after, faults} = await report();

  t.deepEqual(faults, []);
  t.true(after - before < GROWTH, `the heap grew from ${before} to ${after} bytes`);
  // The run is worth something only if it provokes every kind of answer.
  for (const status of [200, 201, 202, 204, 206, 304, 400, 404, 405, 414, 416, 503])
    t.true((statuses.get(status) ?? 0) > 0, `${status}`);

  t.deepEqual((await readdir(folder)).sort(), ['cwd', 'store']);
  t.deepEqual(await readdir(cwd), []);
  const kept = await readdir(store, {recursive: true});
  const unexpected = kept.filter(
    (path) =>
      !/^(?:backref\.(?:sock|lock)|meta\.db(?:-wal|-shm)?|spool(?:\/(?:sha(?:256|512)-[a-f\d]+|upload-[-a-f\d]+)\.part)?|blobs(?:\/.*)?)$/.test(
        path,
      ),
  );
  t.deepEqual(unexpected, []);

  // The upstream cycles through its answers: for content that is not cached, the fourth attempt at the latest gets the image.
  const connection = await connectRaw(port);
  t.teardown(() => connection.socket.destroy());
  let pulled: RawAnswer | undefined;
  for (let attempt = 0; attempt < ANSWER_KINDS && pulled?.status !== 200; attempt++) {
    connection.send(`GET /v2/fresh/${attempt}/manifests/latest HTTP/1.1\r\nHost: a\r\n\r\n`);
    pulled = await connection.answer();
  }
  t.deepEqual(pulled?.body, image.bytes);
});

test('600 mutated answers of an upstream: no wrong content, no absence, no fault', async (t) => {
  const folder = await createFolder(t);
  const upstream = await startSpoilingUpstream(SEED);
  t.teardown(upstream.close);
  const {port, report, kill} = await startFuzzedServer({
    upstream: upstream.url,
    store: join(folder, 'store'),
    cwd: folder,
  });
  t.teardown(kill);
  const statuses: Statuses = new Map();

  await askBehindSpoilingUpstream({port, upstream, seed: SEED, answers: 600, statuses});

  t.deepEqual((await report()).faults, []);
  for (const status of [200, 201, 202, 206, 403, 503]) t.true((statuses.get(status) ?? 0) > 0, `${status}`);
});
