import {stat, symlink} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import test from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata, type SqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {startProgram} from '../../support/command.ts';
import {createFolder} from '../../support/folder.ts';
import {createSmallDisk} from '../../support/small-disk.ts';

const repository = {registry: 'docker.io', name: parseName('library/app')};
const LARGE_BYTES = 128 * 1024;

/** Writes the same pages of the database again each time, and as many of the log. */
const largeList = (at: number, into = repository): Change => ({
  type: 'tag-list.put',
  repository: into,
  names: [String.fromCharCode(97 + (at % 26)).repeat(LARGE_BYTES)],
  at,
});

test('the log stays smaller than what is committed without a pause', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const metadata = await openSqliteMetadata({path});
  t.teardown(() => metadata.close());
  let largest = 0;
  for (let group = 0; group < 40; group++) {
    await Promise.all(
      Array.from({length: 16}, (_, index) => metadata.commit([largeList(group * 16 + index)])),
    );
    largest = Math.max(largest, (await stat(`${path}-wal`)).size);
  }
  t.true(largest < (40 * 16 * LARGE_BYTES) / 2, `${largest}`);
});

/** Makes the log two MiB longer: SQLite writes no page that stays as it is. */
const commitLists = (metadata: SqliteMetadata, at: number) =>
  Promise.all(
    Array.from({length: 16}, (_, index) => {
      const name = parseName(`library/app${index}`);
      return metadata.commit([largeList(at, {...repository, name})]);
    }),
  );

const MAX_LOG_BYTES = 32 * 1024 * 1024;
/** What a group adds before the log is looked at. */
const GROUP_BYTES = 4 * 1024 * 1024;
const READER = fileURLToPath(new URL('./reader.ts', import.meta.url));

test('the log stays bounded while another process reads without a pause', async (t) => {
  const folder = await createFolder(t);
  const path = join(folder, 'meta.db');
  // SQLite keeps the log beside the file itself.
  await symlink('elsewhere.db', path);
  const metadata = await openSqliteMetadata({path});
  t.teardown(() => metadata.close());
  const {child, prints} = startProgram(t, process.execPath, [READER, path], {cwd: folder});
  await prints(/reading/);
  let largest = 0;
  for (let group = 0; group < 60; group++) {
    await commitLists(metadata, group);
    largest = Math.max(largest, (await stat(join(folder, 'elsewhere.db-wal'))).size);
  }
  t.is(child.exitCode, null);
  // Twice, as a reader that a busy machine holds up for a moment has to be waited for again.
  t.true(largest < 2 * (MAX_LOG_BYTES + GROUP_BYTES), `${largest}`);
});

test('a snapshot that stays open keeps the log growing and fails no commit; afterwards the log is cut', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const metadata = await openSqliteMetadata({path});
  t.teardown(() => metadata.close());
  const snapshot = await metadata.snapshot();
  for (let group = 0; group < 40; group++) t.true((await commitLists(metadata, group)).every(Boolean));
  t.true((await stat(`${path}-wal`)).size > 2 * MAX_LOG_BYTES);
  await snapshot.close();
  await commitLists(metadata, 1);
  await commitLists(metadata, 2);
  t.true((await stat(`${path}-wal`)).size <= MAX_LOG_BYTES);
});

test('a full disk takes a commit that has room in the log, once what the log holds is copied', async (t) => {
  const disk = await createSmallDisk(t);
  if (!disk) return t.pass();
  const path = join(disk.folder, 'meta.db');
  const metadata = await openSqliteMetadata({path});
  await metadata.commit([largeList(10)]);
  await metadata.commit([largeList(11)]);
  await metadata.close();
  const opened = await openSqliteMetadata({path});
  t.teardown(() => opened.close());
  for (let at = 12; at <= 20; at++) await opened.commit([largeList(at)]);
  await disk.fill();
  for (let at = 21; at <= 60; at++) t.true(await opened.commit([largeList(at)]));
  t.is((await opened.tagList(repository))?.checkedAt, 60);
});
