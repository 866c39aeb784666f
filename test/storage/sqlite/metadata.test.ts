import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {createInterface} from 'node:readline';
import {DatabaseSync} from 'node:sqlite';
import {fileURLToPath} from 'node:url';
import test, {type ExecutionContext} from 'ava';
import type {Tag} from '../../../src/oci/name.ts';
import {parseName} from '../../../src/oci/name.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {MIGRATIONS} from '../../../src/storage/sqlite/migrations.ts';
import {createFolder} from '../../support/folder.ts';
import {evictionContract} from '../contract-eviction.ts';
import {evictionModelContract} from '../contract-eviction-model.ts';
import {garbageContract} from '../contract-garbage.ts';
import {manifestPut, metadataContract} from '../contract-metadata.ts';
import {pushContract} from '../contract-pushes.ts';
import {referrerContract} from '../contract-referrers.ts';

const createPlace = async (t: ExecutionContext) => {
  const path = join(await createFolder(t), 'data', 'meta.db');
  return {open: () => openSqliteMetadata({path})};
};

metadataContract(test, createPlace);
referrerContract(test, createPlace);
pushContract(test, createPlace);
garbageContract(test, createPlace);
evictionContract(test, createPlace);
evictionModelContract(test, createPlace);

const repository = {registry: 'docker.io', name: parseName('library/app')};

test('a process that is killed does not lose a commit that had resolved', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const child = spawn(process.execPath, [fileURLToPath(new URL('./committer.ts', import.meta.url)), path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  const resolved: string[] = [];
  for await (const line of createInterface(child.stdout)) {
    resolved.push(line);
    if (resolved.length === 50) child.kill('SIGKILL');
  }
  await exited;
  t.true(resolved.length >= 50);

  const metadata = await openSqliteMetadata({path});
  t.teardown(() => metadata.close());
  for (const name of resolved) {
    const tag = await metadata.tag(repository, name as Tag);
    t.truthy(tag, `${name} was reported as committed`);
    t.truthy(tag && (await metadata.manifest(repository, tag.digest)));
  }
});

test('a commit that the disk has no space for does not fail those that wait with it', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const program = fileURLToPath(new URL('./crowded.ts', import.meta.url));
  // A limit on file sizes simulates a full disk without privileges.
  const child = spawn('sh', ['-c', 'ulimit -f 2048 && exec "$0" "$@"', process.execPath, program, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const lines = await Array.fromAsync(createInterface(child.stdout));
  t.deepEqual(lines, [
    'small: committed',
    'large: refused',
    'small: committed',
    'later: committed',
    'found: 3',
  ]);
});

test('two processes on one file see each other’s commits', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const [one, two] = await Promise.all([openSqliteMetadata({path}), openSqliteMetadata({path})]);
  t.teardown(() => Promise.all([one.close(), two.close()]));
  const puts = Array.from({length: 40}, (_, index) => manifestPut(`${index}`));
  await Promise.all(puts.map((put, index) => (index % 2 === 0 ? one : two).commit([put])));
  for (const put of puts) {
    t.truthy(await one.manifest(repository, put.digest));
    t.truthy(await two.manifest(repository, put.digest));
  }
});

test('the database is in WAL mode and has the version of its schema', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  await (await openSqliteMetadata({path})).close();
  using database = new DatabaseSync(path, {readOnly: true});
  t.like(database.prepare('pragma journal_mode').get(), {journal_mode: 'wal'});
  t.like(database.prepare('pragma user_version').get(), {user_version: MIGRATIONS.length});
});

test('a file that is not a database is refused with what to do, and left as it is', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const content = 'these are the notes of somebody\n'.repeat(100);
  await writeFile(path, content);
  await t.throwsAsync(() => openSqliteMetadata({path}), {
    message: `metadata: ${path} is not an SQLite database. Set storage.metadata.path to another file, or move this one away to begin with an empty one.`,
  });
  t.is(await readFile(path, 'utf8'), content);
});

test('a database of another program is refused and left as it is', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  {
    using database = new DatabaseSync(path);
    database.exec('create table note (text text)');
  }
  const before = await readFile(path);
  await t.throwsAsync(() => openSqliteMetadata({path}), {
    message: `metadata: ${path} is a database of another program. Set storage.metadata.path to a file of its own.`,
  });
  t.deepEqual(await readFile(path), before);
});

test('a database of a newer schema is refused with both versions', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  await (await openSqliteMetadata({path})).close();
  {
    using database = new DatabaseSync(path);
    database.exec('pragma user_version = 99');
  }
  await t.throwsAsync(() => openSqliteMetadata({path}), {
    message: `metadata: ${path} was written by a newer backref (schema 99; this one knows up to ${MIGRATIONS.length}). Run that version again, or set storage.metadata.path to another file.`,
  });
});

test('the error for a path that cannot be opened names it', async (t) => {
  const folder = await createFolder(t);
  await mkdir(join(folder, 'meta.db'));
  await t.throwsAsync(() => openSqliteMetadata({path: join(folder, 'meta.db')}), {
    message: /^metadata: .*meta\.db cannot be opened: .* set storage\.metadata\.path\.$/,
  });
  await writeFile(join(folder, 'file'), '');
  await t.throwsAsync(() => openSqliteMetadata({path: join(folder, 'file', 'meta.db')}), {
    message: /^metadata: .*meta\.db cannot be opened: /,
  });
});
