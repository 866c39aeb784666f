import {join} from 'node:path';
import test from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import {DiskFull, type DiskProblem} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {diskProblemIn} from '../../../src/storage/sqlite/writer.ts';
import {createFolder} from '../../support/folder.ts';
import {fillDisk} from '../../support/full-disk.ts';
import {manifestPut} from '../contract-metadata.ts';

const repository = {registry: 'docker.io', name: parseName('library/app')};

test('a full disk is reported as DiskFull, changes nothing, and commits work again once there is space', async (t) => {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const [one, two] = [manifestPut('one'), manifestPut('two')];
  await metadata.commit([one]);
  const free = fillDisk(folder);
  await t.throwsAsync(metadata.commit([two]), {instanceOf: DiskFull, message: /took no commit: .*full/});
  t.truthy(await metadata.manifest(repository, one.digest));
  t.is(await metadata.manifest(repository, two.digest), undefined);
  free();
  t.true(await metadata.commit([two]));
  t.truthy(await metadata.manifest(repository, two.digest));
});

/** SQLite, Result Codes. */
const CODES: [name: string, code: number, problem: DiskProblem | undefined][] = [
  ['SQLITE_FULL', 13, 'full'],
  ['SQLITE_READONLY', 8, 'read-only'],
  ['SQLITE_READONLY_DIRECTORY', 1544, 'read-only'],
  ['SQLITE_IOERR', 10, 'failing'],
  ['SQLITE_IOERR_WRITE', 778, 'failing'],
  ['SQLITE_IOERR_FSYNC', 1034, 'failing'],
  ['SQLITE_IOERR_SHMSIZE', 4874, 'failing'],
  ['SQLITE_CANTOPEN', 14, 'failing'],
  ['SQLITE_BUSY', 5, undefined],
  ['SQLITE_CONSTRAINT_UNIQUE', 2067, undefined],
  ['SQLITE_CORRUPT', 11, 'failing'],
];
for (const [name, code, problem] of CODES) {
  test(`${name} means ${problem ? `a disk that is ${problem}` : 'no problem of the disk'}`, (t) => {
    t.is(diskProblemIn(code), problem);
  });
}
