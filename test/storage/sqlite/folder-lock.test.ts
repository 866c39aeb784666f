import {execFile} from 'node:child_process';
import {once} from 'node:events';
import {symlink} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {Occupied} from '../../../src/storage/folder-lock.ts';
import {lockFolder} from '../../../src/storage/sqlite/folder-lock.ts';
import {createFolder} from '../../support/folder.ts';

test('a folder has one holder, under whatever path it is opened, until that one releases it', async (t) => {
  const folder = join(await createFolder(t), 'made', 'here');
  const lock = lockFolder(folder);
  const other = join(await createFolder(t), 'link');
  await symlink(folder, other);
  for (const name of [folder, other]) {
    t.throws(() => lockFolder(name), {instanceOf: Occupied, message: /another backref is using /});
  }
  lock.release();
  lock.release();
  lockFolder(other).release();
});

test('a process that is killed loses its lock', async (t) => {
  const folder = await createFolder(t);
  const module = new URL('../../../src/storage/sqlite/folder-lock.ts', import.meta.url).href;
  const program = `
    import {lockFolder} from ${JSON.stringify(module)};
    lockFolder(${JSON.stringify(folder)});
    console.log('locked');
    setInterval(() => {}, 1000);
  `;
  const holder = execFile(process.execPath, ['--input-type=module', '--eval', program]);
  t.teardown(() => holder.kill('SIGKILL'));
  const exited = once(holder, 'exit');
  await once(holder.stdout ?? holder, 'data');
  t.throws(() => lockFolder(folder), {instanceOf: Occupied});
  holder.kill('SIGKILL');
  await exited;
  t.notThrows(() => lockFolder(folder).release());
});

test('a folder that cannot be created does not count as occupied', async (t) => {
  const error = t.throws(() => lockFolder('/dev/null/folder'));
  t.false(error instanceof Occupied);
});
