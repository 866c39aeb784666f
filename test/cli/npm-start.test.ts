import {writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import test from 'ava';
import {startProgram} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const PROJECT = resolve(import.meta.dirname, '../..');

/** What `npm start` is given: nothing that npm has set for this process, and a folder for everything that is written. */
const environmentIn = (folder: string): Record<string, string> => ({
  PATH: process.env['PATH'] ?? '',
  HOME: folder,
  // Without a cache, npm would look for a newer npm and announce it on stderr.
  npm_config_update_notifier: 'false',
  BACKREF_LISTEN_HOST: '127.0.0.1',
  BACKREF_LISTEN_PORT: '0',
  BACKREF_STORAGE_PATH: join(folder, 'data'),
});

test('a SIGHUP to the process that npm start names reloads the configuration', async (t) => {
  const folder = await createFolder(t);
  const config = join(folder, 'f.yaml');
  await writeFile(config, 'registries: {apps.local: {default: true}}');
  const env = {...environmentIn(folder), BACKREF_CONFIG: config};
  const npm = startProgram(t, 'npm', ['start'], {cwd: PROJECT, env});
  const [, pid] = await npm.prints(/kill -HUP (\d+)/);
  await npm.prints(/Pull through it/);
  await writeFile(config, 'registries: {other.local: {default: true}}');
  process.kill(Number(pid), 'SIGHUP');
  await npm.prints(/added other\.local; removed apps\.local/);
  npm.child.kill('SIGTERM');
  t.is(await npm.ended, 0);
});

test('npm start serves, and a SIGTERM to npm stops the server and ends with 0', async (t) => {
  const env = environmentIn(await createFolder(t));
  const npm = startProgram(t, 'npm', ['start'], {cwd: PROJECT, env});
  const [, url] = await npm.prints(/listens on (http:\S+)/);
  t.is((await fetch(`${url}/v2/`)).status, 200);
  npm.child.kill('SIGTERM');
  t.is(await npm.ended, 0);
  t.is(npm.printed().stderr, '');
  await t.throwsAsync(fetch(`${url}/v2/`), {message: 'fetch failed'});
});
