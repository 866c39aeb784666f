import {mkdir, readdir, symlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {run, start} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const HOSTED = {
  BACKREF_LISTEN_HOST: '127.0.0.1',
  BACKREF_LISTEN_PORT: '0',
  BACKREF_CONFIG: 'hosted.yaml',
};
const LISTENS = /listens on (http:\S+)/;

/** A working directory with the settings of a hosted registry. */
async function createWorkplace(t: Parameters<typeof createFolder>[0]): Promise<string> {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'hosted.yaml'), 'registries: {apps.local: {default: true}}');
  return cwd;
}

test('storage.path moves everything that a server stores, and its commands find it there', async (t) => {
  const cwd = await createWorkplace(t);
  const env = {...HOSTED, BACKREF_STORAGE_PATH: join(cwd, 'kept')};
  const server = start(t, ['serve'], {cwd, env});
  const [, url] = await server.prints(LISTENS);
  const upload = await fetch(`${url}/v2/app/blobs/uploads/`, {method: 'POST'});
  const location = new URL(upload.headers.get('location') ?? '', url);
  t.is((await fetch(location, {method: 'PATCH', body: 'begun'})).status, 202);
  t.is((await run(t, ['gc'], {cwd, env})).code, 0);
  const kept = await readdir(join(cwd, 'kept'));
  for (const name of ['backref.lock', 'backref.sock', 'meta.db', 'spool']) t.true(kept.includes(name), name);
  t.deepEqual((await readdir(cwd)).sort(), ['hosted.yaml', 'kept']);
});

test('a second server is refused the folder of the blobs as well as the data folder', async (t) => {
  const cwd = await createWorkplace(t);
  const blobs = join(cwd, 'blobs');
  const first = start(t, ['serve'], {cwd, env: {...HOSTED, BACKREF_STORAGE_BLOBS_PATH: blobs}});
  await first.prints(LISTENS);
  t.deepEqual((await readdir(blobs)).sort(), ['backref.lock', 'blobs']);
  for (const env of [{BACKREF_STORAGE_PATH: 'other', BACKREF_STORAGE_BLOBS_PATH: blobs}, {}]) {
    const {code, stderr} = await run(t, ['serve'], {cwd, env: {...HOSTED, ...env}});
    t.is(code, 1);
    t.regex(stderr, /another backref is using \/.*: stop it, or .* storage\.path/);
  }
});

test('a folder with two names counts as one folder', async (t) => {
  const cwd = await createWorkplace(t);
  await mkdir(join(cwd, 'data'));
  await symlink('data', join(cwd, 'link'));
  const server = start(t, ['serve'], {cwd, env: {...HOSTED, BACKREF_STORAGE_BLOBS_PATH: './link'}});
  const [, url] = await server.prints(LISTENS);
  t.is((await fetch(`${url}/v2/`)).status, 200);
});
