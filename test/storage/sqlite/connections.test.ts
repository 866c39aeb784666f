import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import {pathToFileURL} from 'node:url';
import test, {type ExecutionContext} from 'ava';
import {DiskFull} from '../../../src/storage/metadata.ts';
import {compileWrites} from '../../../src/storage/sql/metadata.ts';
import {openConnections} from '../../../src/storage/sqlite/connections.ts';
import {createCompiler} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';

/** SQLITE_READONLY */
const REFUSES = `
  import {parentPort} from 'node:worker_threads';
  parentPort.on('message', (group) => {
    if (group === 'close') return parentPort.close();
    parentPort.postMessage(group.map(() => ({message: 'attempt to write a readonly database', errcode: 8})));
  });
`;

/** A database whose disk has just refused a commit. */
async function refused(t: ExecutionContext) {
  const folder = await createFolder(t);
  const [path, thread] = [join(folder, 'meta.db'), join(folder, 'thread.mjs')];
  await writeFile(thread, REFUSES);
  const writes = () => compileWrites(createCompiler());
  const connections = openConnections({path, writes, thread: pathToFileURL(thread)});
  t.teardown(() => connections.close());
  await t.throwsAsync(connections.commit([]), {instanceOf: DiskFull});
  return {connections, path};
}

test('a commit while the database is being opened for writing again is refused for the disk, as one before', async (t) => {
  const {connections} = await refused(t);
  const reopened = connections.reopen();
  await t.throwsAsync(connections.commit([]), {instanceOf: DiskFull});
  t.true(await reopened);
  t.is(connections.refusal, undefined);
});

test('a reader that is opened while the old writer ends sees what is still written', async (t) => {
  const {connections, path} = await refused(t);
  const reopened = connections.reopen();
  using reader = connections.openReader();
  using other = new DatabaseSync(path);
  other.exec('create table late (id integer); insert into late values (7)');
  t.like(reader.prepare('select id from late').get(), {id: 7});
  t.true(await reopened);
});

test('closing while the database is being opened for writing again waits for that and leaves no writer', async (t) => {
  const {connections} = await refused(t);
  const reopened = connections.reopen();
  await connections.close();
  t.false(await reopened);
  await t.throwsAsync(connections.commit([]), {instanceOf: DiskFull});
});
