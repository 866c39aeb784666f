import {stat} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';
import {createSmallDisk} from '../../support/small-disk.ts';

const repository = {registry: 'docker.io', name: parseName('library/app')};
const LARGE_BYTES = 128 * 1024;

/** Writes the same pages of the database again each time, and as many of the log. */
const largeList = (at: number): Change => ({
  type: 'tag-list.put',
  repository,
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
