import {execFile} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {readdir, readlink, rename, rm, stat, truncate, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import test, {type ExecutionContext} from 'ava';
import fc from 'fast-check';
import {systemClock} from '../../../src/clock.ts';
import {createReadPool, type ReadPool} from '../../../src/storage/fs/read-pool.ts';
import {createSharedFiles, type SharedFiles} from '../../../src/storage/fs/shared-files.ts';
import {createFolder} from '../../support/folder.ts';

const run = promisify(execFile);

const MIB = 1024 * 1024;
const SIZE = 5 * MIB + 321;

async function setUp(t: ExecutionContext, budget = 32 * MIB) {
  const folder = await createFolder(t);
  const path = join(folder, 'file');
  const content = randomBytes(SIZE);
  await writeFile(path, content);
  const pool = createReadPool(budget);
  return {folder, path, content, pool, files: createSharedFiles(pool)};
}

async function readAll(files: SharedFiles, path: string, start = 0, end?: number): Promise<Buffer> {
  const file = await files.open(path);
  try {
    const chunks = file.read(start, end ?? file.size);
    return Buffer.concat(await Array.fromAsync(chunks, (chunk) => Buffer.from(chunk)));
  } finally {
    await file.close();
  }
}

/** Reads the first chunk. @returns what reads the rest and closes the file */
async function begin(files: SharedFiles, path: string) {
  const file = await files.open(path);
  const chunks = file.read(0, file.size);
  const parts = [Buffer.from((await chunks.next()).value ?? [])];
  return async (): Promise<Buffer> => {
    try {
      for await (const chunk of chunks) parts.push(Buffer.from(chunk));
      return Buffer.concat(parts);
    } finally {
      await file.close();
    }
  };
}

const isFree = (t: ExecutionContext, pool: ReadPool): void => void t.is(pool.held, 0);

test('what any number of readers get at once, of whatever ranges, are the bytes of the file', async (t) => {
  const {path, content, files, pool} = await setUp(t, 2 * MIB);
  const range = fc
    .tuple(fc.nat(SIZE), fc.nat(SIZE))
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
  const reader = fc.record({range, leavesAfter: fc.option(fc.nat(3))});
  const property = fc.asyncProperty(fc.array(reader, {minLength: 1, maxLength: 12}), async (readers) => {
    await Promise.all(
      readers.map(async ({range: [start, end], leavesAfter}) => {
        const file = await files.open(path);
        let at = start;
        let chunks = 0;
        for await (const chunk of file.read(start, end)) {
          // While a socket would still be sending this, others read on.
          await new Promise(setImmediate);
          t.true(content.subarray(at, at + chunk.length).equals(chunk));
          at += chunk.length;
          if (chunks++ === leavesAfter) break;
        }
        if (leavesAfter === null) t.is(at, end);
        await file.close();
      }),
    );
    isFree(t, pool);
    t.true(pool.allocated <= 2 * MIB + 2 * readers.length * 64 * 1024);
  });
  await fc.assert(property, {numRuns: 40});
});

test('readers of the same part share its memory', async (t) => {
  const {path, files, pool} = await setUp(t);
  const finish = await Promise.all(Array.from({length: 50}, () => begin(files, path)));
  // The segment that each is given, and the one read ahead.
  t.is(pool.held, 2 * MIB);
  await Promise.all(finish.map((rest) => rest()));
  isFree(t, pool);
});

test('what was read stays readable while the pool has room, and the file is open only while somebody reads', async (t) => {
  const {path, content, files, pool} = await setUp(t);
  await readAll(files, path);
  const {allocated} = pool;
  t.true((await readAll(files, path)).equals(content));
  t.is(pool.allocated, allocated);
});

test('a small part is read without what surrounds it', async (t) => {
  const {path, content, files, pool} = await setUp(t);
  t.true((await readAll(files, path, 100, 200)).equals(content.subarray(100, 200)));
  t.is(pool.allocated, 64 * 1024);
});

test('a reader that leaves early frees what it held, also what is being read ahead', async (t) => {
  const {path, files, pool} = await setUp(t);
  const file = await files.open(path);
  for await (const chunk of file.read(0, file.size)) {
    t.is(chunk.length, MIB);
    break;
  }
  isFree(t, pool);
  await file.close();
});

for (const how of ['forgotten', 'compared'] as const) {
  test(`a file that is replaced while it is read goes on to its end, and the next reader gets the new one (${how})`, async (t) => {
    const {folder, path, content, files, pool} = await setUp(t);
    const finish = await begin(files, path);
    const other = randomBytes(SIZE);
    await writeFile(join(folder, 'other'), other);
    await rename(join(folder, 'other'), path);
    if (how === 'forgotten') files.forget(path);
    else files.compare(path, await stat(path));
    const next = await begin(files, path);
    t.true((await finish()).equals(content));
    t.true((await next()).equals(other));
    t.true((await readAll(files, path)).equals(other));
    isFree(t, pool);
  });
}

test('a file that was replaced while nobody read it is read anew', async (t) => {
  const {folder, path, content, files} = await setUp(t);
  t.true((await readAll(files, path)).equals(content));
  const other = randomBytes(SIZE);
  await writeFile(join(folder, 'other'), other);
  await rename(join(folder, 'other'), path);
  t.true((await readAll(files, path)).equals(other));
});

test('a file that is unchanged is not read anew', async (t) => {
  const {path, files, pool} = await setUp(t);
  const finish = await begin(files, path);
  files.compare(path, await stat(path));
  const next = await begin(files, path);
  t.is(pool.held, 2 * MIB);
  await Promise.all([finish(), next()]);
});

test('a deleted file is read to its end, and cannot be opened again', async (t) => {
  const {path, content, files, pool} = await setUp(t);
  const finish = await begin(files, path);
  await rm(path);
  files.forget(path);
  await t.throwsAsync(() => files.open(path), {code: 'ENOENT'});
  t.true((await finish()).equals(content));
  isFree(t, pool);
});

test('a file that gets shorter while it is read fails for each of its readers, and can be read when it is whole', async (t) => {
  const {path, content, files, pool} = await setUp(t);
  const finish = await Promise.all([begin(files, path), begin(files, path)]);
  await truncate(path, 3 * MIB);
  for (const rest of finish) await t.throwsAsync(rest, {message: /^the file ended at byte/});
  isFree(t, pool);
  await writeFile(path, content);
  t.true((await readAll(files, path)).equals(content));
});

test('a range beyond the end fails after the bytes that there are', async (t) => {
  const {path, content, files, pool} = await setUp(t);
  const file = await files.open(path);
  const parts: Buffer[] = [];
  await t.throwsAsync(
    async () => {
      for await (const chunk of file.read(SIZE - 10, SIZE + 1)) parts.push(Buffer.from(chunk));
    },
    {message: `the file ended at byte ${SIZE}, before byte ${SIZE + 1}`},
  );
  t.true(Buffer.concat(parts).equals(content.subarray(-10)));
  await file.close();
  isFree(t, pool);
});

test('readers that no buffer is left for get their bytes all the same', async (t) => {
  const {path, content, files, pool} = await setUp(t, MIB);
  const held = Array.from({length: 40}, () => pool.take(MIB));
  const all = await Promise.all(Array.from({length: 10}, () => readAll(files, path)));
  t.true(all.every((bytes) => bytes.equals(content)));
  for (const buffer of held) pool.release(buffer);
  t.true(pool.allocated <= MIB);
});

/** Shared files that stay open for a moment, which passes when a test says so. */
async function setUpKept(t: ExecutionContext) {
  const {folder, path, content, pool} = await setUp(t);
  let waits: (() => void)[] = [];
  const after = (_: number, call: () => void) => {
    waits.push(call);
    return () => {
      waits = waits.filter((wait) => wait !== call);
    };
  };
  const files = createSharedFiles(pool, {clock: {...systemClock, after}});
  t.teardown(() => files.close());
  const open = async (): Promise<number> => {
    const links = await Promise.all(
      (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
    );
    return links.filter((link) => link.startsWith(folder)).length;
  };
  return {
    ...{folder, path, content, files, open},
    /** Lets a wait pass. What it closes, it closes in a later turn. */
    pass() {
      const due = waits;
      waits = [];
      for (const call of due) call();
    },
    async until(count: number) {
      while ((await open()) !== count) await new Promise(setImmediate);
      t.is(await open(), count);
    },
  };
}

test('a file stays open for a moment after its last reader, and is not opened again meanwhile', async (t) => {
  const {path, content, files, open, pass, until} = await setUpKept(t);
  await readAll(files, path);
  t.is(await open(), 1);
  pass();
  t.true((await readAll(files, path)).equals(content));
  pass();
  t.is(await open(), 1, 'it was read since the wait before this one');
  pass();
  await until(0);
  t.true((await readAll(files, path)).equals(content));
  t.is(await open(), 1);
});

test('a file that is forgotten is closed at once, or with its last reader', async (t) => {
  const {path, content, files, until} = await setUpKept(t);
  await readAll(files, path);
  files.forget(path);
  await until(0);
  const finish = await begin(files, path);
  files.forget(path);
  await until(1);
  t.true((await finish()).equals(content));
  await until(0);
});

test('of many files without readers, those that were left last stay open', async (t) => {
  const {folder, files, until} = await setUpKept(t);
  const paths = Array.from({length: 70}, (_, index) => join(folder, `${index}`));
  for (const path of paths) {
    await writeFile(path, path);
    await readAll(files, path);
  }
  await until(64);
  for (const path of paths.slice(-64)) files.forget(path);
  await until(0);
});

test('another file at the path of one that stays open is read, and one that is removed is missing', async (t) => {
  const {folder, path, content, files, until} = await setUpKept(t);
  t.true((await readAll(files, path)).equals(content));
  const other = randomBytes(SIZE);
  await writeFile(join(folder, 'other'), other);
  await rename(join(folder, 'other'), path);
  t.true((await readAll(files, path)).equals(other));
  await until(1);
  await rm(path);
  await t.throwsAsync(() => readAll(files, path), {code: 'ENOENT'});
  await until(0);
});

test('a file that could not be read does not stay open', async (t) => {
  const {path, files, until} = await setUpKept(t);
  const finish = await begin(files, path);
  await truncate(path, MIB);
  await t.throwsAsync(finish, {message: /^the file ended at byte/});
  await until(0);
});

test('a file that could not be opened again is opened by the next reader', async (t) => {
  const {folder, path, content, files, pass, until} = await setUpKept(t);
  await readAll(files, path);
  pass();
  pass();
  await until(0);
  await rename(path, join(folder, 'elsewhere'));
  await t.throwsAsync(() => readAll(files, path), {code: 'ENOENT'});
  await rename(join(folder, 'elsewhere'), path);
  t.true((await readAll(files, path)).equals(content));
});

test('files without readers give way to one that is read, where descriptors are few', async (t) => {
  const {folder, path} = await setUp(t);
  const other = join(folder, 'other');
  await writeFile(other, 'other');
  const program = fileURLToPath(new URL('./few-descriptors.ts', import.meta.url));
  const command = 'ulimit -n 100 && exec "$0" "$@"';
  const {stdout} = await run('sh', ['-c', command, process.execPath, program, path, other]);
  t.is(stdout, `${SIZE}\n5\n`);
});

test('no file stays open once they are closed', async (t) => {
  const {path, content, files, open, until} = await setUpKept(t);
  await readAll(files, path);
  const finish = await begin(files, path);
  await files.close();
  t.is(await open(), 1);
  t.true((await finish()).equals(content));
  await until(0);
});
