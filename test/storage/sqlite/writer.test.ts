import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';
import test, {type ExecutionContext} from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import {DiskFull} from '../../../src/storage/metadata.ts';
import {compileWrites} from '../../../src/storage/sql/metadata.ts';
import {createCompiler} from '../../../src/storage/sqlite/metadata.ts';
import {createWriter} from '../../../src/storage/sqlite/writer.ts';
import {createFolder} from '../../support/folder.ts';

/** A thread that runs this program instead of the real one. */
async function withThread(t: ExecutionContext, program: string) {
  const file = join(await createFolder(t), 'thread.mjs');
  await writeFile(file, `import {parentPort} from 'node:worker_threads';\n${program}`);
  return {path: '/data/meta.db', writes: () => compileWrites(createCompiler()), thread: pathToFileURL(file)};
}

const dies = `parentPort.once('message', () => { throw new Error('no such luck') });`;
const leaves = `parentPort.once('message', () => process.exit(3));`;

for (const [what, program, reason] of [
  ['dies', dies, 'no such luck'],
  ['leaves', leaves, 'it exited with code 3'],
] as const) {
  test(`when the thread ${what}, waiting and later commits are rejected`, async (t) => {
    const writer = createWriter(await withThread(t, program));
    const waiting = [writer.commit([]), writer.commit([])];
    const queued = Promise.resolve().then(() => writer.commit([]));
    const message = `metadata: the thread that writes /data/meta.db has ended, so nothing can be committed: ${reason}. Restart the server.`;
    for (const commit of [...waiting, queued]) await t.throwsAsync(commit, {message});
    await t.throwsAsync(() => writer.commit([]), {message});
    await writer.close();
  });
}

test('when the thread dies while it is being closed, waiting commits are rejected and close ends', async (t) => {
  const writer = createWriter(await withThread(t, dies));
  const waiting = writer.commit([]);
  const closing = writer.close();
  await t.throwsAsync(waiting, {message: /no such luck/});
  await closing;
  await writer.close();
  await t.throwsAsync(() => writer.commit([]), {message: 'metadata: /data/meta.db is closed'});
});

test('a thread that cannot start fails the commits, and says why', async (t) => {
  const broken = createWriter(await withThread(t, `throw new Error('cannot begin')`));
  await t.throwsAsync(() => broken.commit([]), {message: /cannot begin/});
  await broken.close();
  const silent = createWriter(await withThread(t, ''));
  await t.throwsAsync(() => silent.commit([]), {message: /it exited with code 0/});
  await silent.close();
});

test('there is no thread before the first commit', async (t) => {
  const writer = createWriter(await withThread(t, `throw new Error('is not started')`));
  await writer.close();
  await t.throwsAsync(() => writer.commit([]), {message: 'metadata: /data/meta.db is closed'});
});

test('commits that are requested together form one group, and those that come meanwhile the next', async (t) => {
  const counts = `
    let last = 0;
    parentPort.on('message', (group) => {
      if (group === 'close') return parentPort.close();
      const size = group.length;
      parentPort.postMessage(group.map(() => ({message: 'a group of ' + size, code: 'ERR_SQLITE_ERROR', errcode: 13})));
    });`;
  const writer = createWriter(await withThread(t, counts));
  const first = Array.from({length: 5}, () => writer.commit([]));
  const meanwhile = Promise.resolve().then(() => Array.from({length: 3}, () => writer.commit([])));
  const error = {message: 'metadata: /data/meta.db took no commit: a group of 5', code: 'ERR_SQLITE_ERROR'};
  for (const commit of first) t.like(await t.throwsAsync(commit, error), {errcode: 13});
  const second = (await meanwhile).map((commit) => t.throwsAsync(commit, {message: /a group of 3/}));
  await Promise.all(second);
  await writer.close();
});

for (const [errcode, isDiskFull] of [
  [13, true],
  [11, true],
  [19, false],
] as const) {
  test(`SQLite's result code ${errcode} is ${isDiskFull ? 'DiskFull' : 'another error'}`, async (t) => {
    const fails = `
      parentPort.on('message', (group) => {
        if (group === 'close') return parentPort.close();
        parentPort.postMessage([{message: 'no luck', code: 'ERR_SQLITE_ERROR', errcode: ${errcode}}]);
      });`;
    const writer = createWriter(await withThread(t, fails));
    const error = await t.throwsAsync(writer.commit([]), {message: /took no commit: no luck$/});
    t.is(error instanceof DiskFull, isDiskFull);
    await writer.close();
  });
}

test('a commit that cannot be sent to the thread fails, and the next one succeeds', async (t) => {
  const takes = `parentPort.on('message', (group) => {
      if (group === 'close') return parentPort.close();
      parentPort.postMessage(group.map(() => true));
    });`;
  const writer = createWriter(await withThread(t, takes));
  const repository = {registry: 'docker.io', name: parseName('app')};
  const names = Object.assign(['1'], {extra: () => {}});
  await t.throwsAsync(writer.commit([{type: 'tag-list.put', repository, names, at: 1}]), {
    message: 'metadata: /data/meta.db took no commit: it cannot be handed to the writer',
  });
  t.true(await writer.commit([]));
  await writer.close();
});
