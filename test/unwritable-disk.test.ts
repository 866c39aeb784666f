import {cp, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {
  type Backref,
  createMovableClock,
  type ProxyAnswer,
  startBackref,
  waiting,
} from './support/backref.ts';
import {start} from './support/command.ts';
import {blobAnswer, type Content, manifestAnswer, plainManifest, randomBlob} from './support/content.ts';
import {errorOf} from './support/pusher.ts';
import {createScriptedUpstream} from './support/scripted-upstream.ts';
import {createSmallDisk, type SmallDisk} from './support/small-disk.ts';

const image = plainManifest();
const [stored, other] = [randomBlob(200_000), randomBlob(300_000)];
const MINUTE = 60_000;

/** A disk on which a server has kept a tag and a blob. */
async function usedDisk(t: ExecutionContext) {
  const disk = await createSmallDisk(t);
  if (!disk) return undefined;
  const blobs = '/v2/library/app/blobs';
  const get = {request: `GET ${blobs}/${other.digest}`, answer: blobAnswer(other), always: true as const};
  const head = {
    always: true as const,
    request: `HEAD ${blobs}/${other.digest}`,
    answer: {headers: {'Content-Length': String(other.bytes.length)}, body: []},
  };
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(image)},
    {request: `GET ${blobs}/${stored.digest}`, answer: blobAnswer(stored)},
  ]);
  const registries = [{url: upstream.url, tags: {ttl: MINUTE}}, {library: false}];
  const proxy = await startBackref(t, {registries, folder: disk.folder});
  await proxy.ask('/v2/app/manifests/1');
  await proxy.ask(`/v2/app/blobs/${stored.digest}`);
  await proxy.idle();
  const clock = waiting(createMovableClock(), (ms) => (ms === 10_000 ? 20 : ms));
  const restart = () => startBackref(t, {registries, folder: disk.folder, clock});
  return {disk, proxy, upstream, uncached: [head, get], whole: get, restart};
}

const isWhole = (t: ExecutionContext, {status, body}: ProxyAnswer, {bytes}: Content): void =>
  void t.true(body.equals(bytes), `${status} ${body.subarray(0, 500)}`);

/** What a server does while it can write nothing. */
async function servesUnwritten(t: ExecutionContext, proxy: Backref, push: RegExp): Promise<void> {
  const cached = await proxy.ask('/v2/app/manifests/1');
  t.deepEqual(cached.body, image.bytes);
  t.regex(String(cached.headers['cache-status']), /^backref;hit/);
  isWhole(t, await proxy.ask(`/v2/app/blobs/${stored.digest}`), stored);
  const passed = await proxy.ask(`/v2/app/blobs/${other.digest}`);
  isWhole(t, passed, other);
  t.regex(String(passed.headers['cache-status']), /detail=uncached/);
  const refused = await proxy.ask('/v2/registry-1.example/app/blobs/uploads/', {method: 'POST'});
  t.is(refused.status, 507);
  t.regex(errorOf(refused).message, push);
  const ready = await proxy.ask('/readyz');
  t.is(ready.status, 503);
  t.regex(ready.body.toString(), /the metadata cannot be written/);
  t.regex((await proxy.ask('/metrics')).body.toString(), /^backref_metadata_writable 0$/m);
}

/** The same server writes again. */
async function writesAgain(t: ExecutionContext, proxy: Backref, restored: () => Promise<void>) {
  const writable = new Promise<void>((resolve) => proxy.server.events.once('storage.writable', resolve));
  await restored();
  await writable;
  isWhole(t, await proxy.ask(`/v2/app/blobs/${other.digest}`), other);
  const answered = async () => (await proxy.ask(`/v2/app/blobs/${other.digest}`)).headers['cache-status'];
  // The download may still be ending.
  while ((await answered()) !== 'backref;hit');
  t.regex((await proxy.ask('/metrics')).body.toString(), /^backref_metadata_writable 1$/m);
}

const STATES: {
  name: string;
  damage(disk: SmallDisk): Promise<void>;
  repair(disk: SmallDisk): Promise<void>;
  push: RegExp;
}[] = [
  {
    name: 'full',
    async damage(disk) {
      await rm(join(disk.folder, 'backref.ballast'), {force: true});
      await disk.fill();
    },
    repair: (disk) => disk.empty(),
    push: /^the disk is full/,
  },
  {
    name: 'read-only',
    damage: (disk) => disk.remount('ro'),
    repair: (disk) => disk.remount('rw'),
    push: /^the disk of this registry is read-only/,
  },
];

for (const {name, damage, repair, push} of STATES) {
  test(`a server starts on a ${name} disk, serves what is cached, passes on the rest, and recovers`, async (t) => {
    const used = await usedDisk(t);
    if (!used) return t.pass();
    const {disk, proxy, upstream, uncached, restart} = used;
    await proxy.server.close();
    await damage(disk);
    for (const expected of uncached) upstream.expect(expected);
    const next = await restart();
    await servesUnwritten(t, next, push);
    await writesAgain(t, next, () => repair(disk));
  });
}

test('on a full disk the ballast gives the database the space that it needs', async (t) => {
  const used = await usedDisk(t);
  if (!used) return t.pass();
  const {disk, proxy, upstream, whole, restart} = used;
  await proxy.server.close();
  await writeFile(join(disk.folder, 'backref.ballast'), Buffer.alloc(8 * 2 ** 20, 1));
  await disk.fill();
  upstream.expect(whole);
  const next = await restart();
  isWhole(t, await next.ask(`/v2/app/blobs/${other.digest}`), other);
  await next.idle();
  t.is((await next.ask(`/v2/app/blobs/${other.digest}`)).headers['cache-status'], 'backref;hit');
});

test('after a kill, a server starts on a read-only disk, and recovers', async (t) => {
  const used = await usedDisk(t);
  if (!used) return t.pass();
  const {disk, proxy, upstream, uncached, restart} = used;
  // What a killed process leaves: the database with its log, as they are now.
  const left = join(disk.folder, 'left');
  for (const file of ['meta.db', 'meta.db-wal', 'meta.db-shm'])
    await cp(join(disk.folder, file), join(left, file));
  await proxy.server.close();
  await cp(left, disk.folder, {recursive: true});
  await disk.remount('ro');
  for (const expected of uncached) upstream.expect(expected);
  const next = await restart();
  await servesUnwritten(t, next, /^the disk of this registry is read-only/);
  await writesAgain(t, next, () => disk.remount('rw'));
});

test('the command says that nothing can be written, and serves', async (t) => {
  const used = await usedDisk(t);
  if (!used) return t.pass();
  const {disk, proxy} = used;
  await proxy.server.close();
  await disk.remount('ro');
  const env = {
    BACKREF_LISTEN_HOST: '127.0.0.1',
    BACKREF_LISTEN_PORT: '0',
    BACKREF_STORAGE_PATH: disk.folder,
  };
  const server = start(t, ['serve', '--json'], {cwd: '/', env});
  await server.prints(/"storage\.read-only".*can only be read: its disk is read-only/);
  await server.prints(/server\.listening/);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
  await disk.remount('rw');
});

test('without a database, a start on a full disk fails and says so', async (t) => {
  const disk = await createSmallDisk(t);
  if (!disk) return t.pass();
  await disk.fill();
  await t.throwsAsync(startBackref(t, {registries: [{library: false}], folder: disk.folder}), {
    message: /^metadata: .*meta\.db cannot be opened: /,
  });
});
