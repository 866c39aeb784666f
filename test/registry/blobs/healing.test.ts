import {readFile, truncate, unlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {type Backref, startBackref} from '../../support/backref.ts';
import {blobAnswer, type Content, randomBlob, sameBytes} from '../../support/content.ts';
import {pusherTo} from '../../support/pusher.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';

const HOSTED = {registries: [{library: false}]};
const UPLOADS = '/v2/library/app/blobs/uploads/';
/** Too large to be kept in memory. */
const large = () => randomBlob(200_000);

const fileOf = ({folder}: Backref, {digest}: Content): string => {
  const encoded = digest.slice('sha256:'.length);
  return join(folder, 'blobs', 'sha256', encoded.slice(0, 2), encoded);
};

async function flipByte(proxy: Backref, blob: Content): Promise<void> {
  const file = fileOf(proxy, blob);
  const bytes = await readFile(file);
  bytes[7] = (bytes[7] ?? 0) ^ 1;
  await writeFile(file, bytes);
}

/** What a disk may do to a stored blob. */
const DAMAGES: Record<string, (proxy: Backref, blob: Content) => Promise<void>> = {
  'has a flipped byte': flipByte,
  'is too short': (proxy, blob) => truncate(fileOf(proxy, blob), 100),
  'is too long': (proxy, blob) => truncate(fileOf(proxy, blob), blob.bytes.length + 1),
};

for (const [state, damage] of Object.entries(DAMAGES)) {
  test(`a stored blob that ${state} is repaired by a push`, async (t) => {
    const proxy = await startBackref(t, HOSTED);
    const {blob, get} = pusherTo(proxy, 'team/app');
    const content = large();
    await blob(content);
    await damage(proxy, content);
    t.is((await blob(content)).status, 201);
    sameBytes(t, await readFile(fileOf(proxy, content)), content.bytes);
    sameBytes(t, (await get(`blobs/${content.digest}`)).body, content.bytes);
  });

  test(`a stored blob that ${state} is repaired by a push through to the upstream`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: new RegExp(`^POST ${UPLOADS}`), answer: {status: 202, headers: {Location: `${UPLOADS}one`}}},
      {request: new RegExp(`^PUT ${UPLOADS}one\\?digest=`), answer: {status: 201}},
      {request: new RegExp(`^POST ${UPLOADS}`), answer: {status: 202, headers: {Location: `${UPLOADS}two`}}},
      {request: new RegExp(`^PUT ${UPLOADS}two\\?digest=`), answer: {status: 201}},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through'}]});
    const {blob, get} = pusherTo(proxy, 'app');
    const content = large();
    t.is((await blob(content)).status, 201);
    await damage(proxy, content);
    t.is((await blob(content)).status, 201);
    sameBytes(t, (await get(`blobs/${content.digest}`)).body, content.bytes);
  });

  test(`a small pushed blob that ${state} is not served, and is repaired by a push`, async (t) => {
    const proxy = await startBackref(t, HOSTED);
    const {blob, get, head} = pusherTo(proxy, 'team/app');
    const content = randomBlob(500);
    await blob(content);
    await damage(proxy, content);
    t.is((await get(`blobs/${content.digest}`)).status, 404);
    t.is((await head(`blobs/${content.digest}`)).status, 404);
    t.is((await blob(content)).status, 201);
    sameBytes(t, (await get(`blobs/${content.digest}`)).body, content.bytes);
    t.is((await head(`blobs/${content.digest}`)).status, 200);
  });

  test(`a small copy that ${state} is fetched again`, async (t) => {
    const content = randomBlob(500);
    const upstream = await createScriptedUpstream(t, [
      {request: `GET /v2/library/app/blobs/${content.digest}`, answer: blobAnswer(content), times: 2},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
    const path = `/v2/app/blobs/${content.digest}`;
    await proxy.ask(path);
    await proxy.idle();
    await damage(proxy, content);
    sameBytes(t, (await proxy.ask(path)).body, content.bytes);
    await proxy.idle();
    sameBytes(t, await readFile(fileOf(proxy, content)), content.bytes);
    sameBytes(t, (await proxy.ask(path)).body, content.bytes);
  });
}

/** Damages that show before a large blob is read. */
const LOSSES: typeof DAMAGES = {
  'is gone': (proxy, blob) => unlink(fileOf(proxy, blob)),
  'is too short': (proxy, blob) => truncate(fileOf(proxy, blob), 100),
  'is empty': (proxy, blob) => truncate(fileOf(proxy, blob), 0),
  'is too long': (proxy, blob) => truncate(fileOf(proxy, blob), blob.bytes.length + 1),
};

for (const [state, damage] of Object.entries(LOSSES)) {
  test(`a large copy whose file ${state} is fetched again, once for all who pull it`, async (t) => {
    const content = large();
    const upstream = await createScriptedUpstream(t, [
      {request: `GET /v2/library/app/blobs/${content.digest}`, answer: blobAnswer(content), times: 2},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
    const path = `/v2/app/blobs/${content.digest}`;
    await proxy.ask(path);
    await proxy.idle();
    await damage(proxy, content);
    const pulls = await Promise.all(Array.from({length: 5}, () => proxy.ask(path)));
    t.true(pulls.every(({status, body}) => status === 200 && body.equals(content.bytes)));
    await proxy.idle();
    sameBytes(t, await readFile(fileOf(proxy, content)), content.bytes);
    sameBytes(t, (await proxy.ask(path)).body, content.bytes);
  });

  test(`a part of a large copy whose file ${state} is right`, async (t) => {
    const content = large();
    const upstream = await createScriptedUpstream(t, [
      {request: `GET /v2/library/app/blobs/${content.digest}`, answer: blobAnswer(content), times: 2},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
    const path = `/v2/app/blobs/${content.digest}`;
    await proxy.ask(path);
    await proxy.idle();
    await damage(proxy, content);
    const part = await proxy.ask(path, {headers: {Range: 'bytes=1000-1999'}});
    t.is(part.status, 206);
    sameBytes(t, part.body, content.bytes.subarray(1000, 2000));
    await proxy.idle();
    sameBytes(t, await readFile(fileOf(proxy, content)), content.bytes);
  });
}

test('a blob whose file is too short is not mounted', async (t) => {
  const proxy = await startBackref(t, HOSTED);
  const content = large();
  await pusherTo(proxy, 'team/app').blob(content);
  await truncate(fileOf(proxy, content), 100);
  const path = `/v2/team/other/blobs/uploads/?mount=${content.digest}&from=team/app`;
  t.is((await proxy.ask(path, {method: 'POST', headers: {'Content-Length': 0}})).status, 202);
});

test('a damaged blob is reported', async (t) => {
  const proxy = await startBackref(t, HOSTED);
  const damaged: string[] = [];
  proxy.server.events.on('blob.damaged', ({digest}) => void damaged.push(digest));
  const content = randomBlob(500);
  const {blob, get} = pusherTo(proxy, 'team/app');
  await blob(content);
  await flipByte(proxy, content);
  await get(`blobs/${content.digest}`);
  t.deepEqual(damaged, [content.digest]);
});

test('a small pushed blob that a check finds bad is not served from memory, and probes and metrics show it', async (t) => {
  const proxy = await startBackref(t, HOSTED);
  const content = randomBlob(500);
  const {blob, get} = pusherTo(proxy, 'team/app');
  await blob(content);
  t.is((await get(`blobs/${content.digest}`)).status, 200);
  await flipByte(proxy, content);
  const commands = await proxy.server.commands();
  await commands.verify({dryRun: false, signal: new AbortController().signal, progress: () => {}});
  t.is((await get(`blobs/${content.digest}`)).status, 404);
  const shown = async () => [
    (await proxy.ask('/readyz')).json(),
    /^backref_damaged_local_blobs \d+$/m.exec((await proxy.ask('/metrics')).body.toString())?.[0],
  ];
  const ready = {server: 'backref', status: 'ready', problems: []};
  t.deepEqual(await shown(), [{...ready, damagedLocalBlobs: 1}, 'backref_damaged_local_blobs 1']);

  await blob(content);
  t.is((await get(`blobs/${content.digest}`)).status, 200);
  t.deepEqual(await shown(), [{...ready, damagedLocalBlobs: 0}, 'backref_damaged_local_blobs 0']);
});
