import {readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import type {Digest} from '../../../src/oci/digest.ts';
import {parseName, parseTag} from '../../../src/oci/name.ts';
import type {BackupContents} from '../../../src/storage/backup-folder.ts';
import {createBackupFolder} from '../../../src/storage/fs/backup-folder.ts';
import {type Content, randomBlob} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';

const STORE = 'a-store';
const REPOSITORY = {registry: 'localhost:5000', name: parseName('team/app')};
const [ONE, TWO] = [randomBlob(10), randomBlob(20, 'sha512')];
const CONTENTS: BackupContents = {
  manifests: [
    {
      repository: REPOSITORY,
      digest: ONE.digest,
      mediaType: 'text/any; charset="é"',
      size: 10,
      tags: [parseTag('v1'), parseTag('latest')],
    },
    {repository: REPOSITORY, digest: TWO.digest, mediaType: 'a/b', size: 20, tags: []},
    {
      repository: {...REPOSITORY, registry: 'other.test'},
      digest: TWO.digest,
      mediaType: 'a/b',
      size: 20,
      tags: [],
    },
  ],
  missing: [{repository: REPOSITORY, digest: ONE.digest}],
  tagChanges: [
    {
      repository: REPOSITORY,
      subject: ONE.digest,
      digest: TWO.digest,
      change: 'add',
      at: 5,
      writtenAt: 6,
    },
  ],
};

async function setUp(t: ExecutionContext) {
  const path = join(await createFolder(t), 'backup');
  const folder = createBackupFolder(path);
  await folder.begin(STORE);
  return {path, folder};
}

async function* chunksOf(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

const put = ({bytes, digest}: Content) => [digest, chunksOf(bytes)] as const;

async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}

test('contents and bytes come back as they were stored', async (t) => {
  const {path, folder} = await setUp(t);
  for (const blob of [ONE, TWO]) t.true(await folder.put(...put(blob)));
  await folder.complete(CONTENTS, 0);
  const again = createBackupFolder(path);
  await again.begin(STORE);
  t.deepEqual(await again.contents(), CONTENTS);
  for (const {bytes, digest} of [ONE, TWO]) {
    t.is(await again.size(digest), bytes.length);
    t.deepEqual(await bytesOf(again.open(digest)), bytes);
  }
});

test('an empty backup is complete', async (t) => {
  const {folder} = await setUp(t);
  const nothing = {manifests: [], missing: [], tagChanges: []};
  await folder.complete(nothing, 0);
  t.deepEqual(await folder.contents(), nothing);
});

test('bytes that do not have their digest, or do not all arrive, are not stored', async (t) => {
  const {path, folder} = await setUp(t);
  t.false(await folder.put(ONE.digest, chunksOf(ONE.bytes, Buffer.from('x'))));
  t.is(await folder.size(ONE.digest), undefined);
  const broken = async function* (): AsyncGenerator<Uint8Array> {
    yield ONE.bytes;
    throw new Error('broken off');
  };
  await t.throwsAsync(folder.put(ONE.digest, broken()), {message: 'broken off'});
  t.is(await folder.size(ONE.digest), undefined);
  t.deepEqual(await readdir(join(path, 'tmp')), []);
});

test('a full disk is explained, and leaves the backup that was there', async (t) => {
  const {folder} = await setUp(t);
  await folder.complete(CONTENTS, 0);
  const full = async function* (): AsyncGenerator<Uint8Array> {
    yield ONE.bytes;
    throw Object.assign(new Error('write'), {code: 'ENOSPC'});
  };
  await t.throwsAsync(folder.put(ONE.digest, full()), {message: /^There is no space left in .* \(ENOSPC\)/});
  t.deepEqual(await folder.contents(), CONTENTS);
});

test('pruning removes everything but what is kept', async (t) => {
  const {path, folder} = await setUp(t);
  for (const blob of [ONE, TWO]) await folder.put(...put(blob));
  await folder.prune(new Set<Digest>([TWO.digest]));
  t.is(await folder.size(ONE.digest), undefined);
  t.is(await folder.size(TWO.digest), 20);
  t.false((await readdir(path)).includes('tmp'));
});

test('damage to the index is noticed, wherever it is', async (t) => {
  const {path, folder} = await setUp(t);
  await folder.complete(CONTENTS, 0);
  const file = join(path, 'index.json');
  const text = await readFile(file, 'utf8');
  const damages = {
    'a tag': text.replaceAll('"v1"', '"v2"'),
    'a size': text.replace('"size":10', '"size":11'),
    'a pending change': text.replace('"at":5', '"at":6'),
    'a lost line': text.split('\n').toSpliced(1, 1).join('\n'),
    'its end': text.slice(0, text.length / 2),
    everything: '{}',
  };
  for (const [what, damaged] of Object.entries(damages)) {
    t.not(damaged, text, what);
    await writeFile(file, damaged);
    await t.throwsAsync(folder.contents(), {message: /^The backup is damaged: .*index\.json: /}, what);
  }
});

test('a folder of another version, a damaged marker and an incomplete backup are refused', async (t) => {
  const {path, folder} = await setUp(t);
  await t.throwsAsync(folder.contents(), {message: /is not complete: there is no index\.json/});
  const marker = join(path, 'backref-backup.json');
  await writeFile(marker, JSON.stringify({version: 2, store: STORE}));
  for (const use of [folder.contents(), folder.begin(STORE)])
    await t.throwsAsync(use, {message: /is a backup of version 2; this backref knows version 1/});
  await writeFile(marker, 'x');
  for (const use of [folder.contents(), folder.begin(STORE)])
    await t.throwsAsync(use, {message: /^The backup is damaged: .*backref-backup\.json: /});
});

test('the remains of a run that was interrupted at its very beginning do no harm', async (t) => {
  const {path, folder} = await setUp(t);
  for (const name of await readdir(path)) await rm(join(path, name), {recursive: true});
  await writeFile(join(path, 'backref-backup.json.new'), '{"ver');
  await folder.begin(STORE);
  await folder.complete(CONTENTS, 0);
  t.deepEqual(await folder.contents(), CONTENTS);
});
