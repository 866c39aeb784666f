import {writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import test from 'ava';
import {startProgram} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const PROJECT = resolve(import.meta.dirname, '../..');

/** What npm needs to run, and nothing of what it has told this process. */
const npmEnvironment = Object.fromEntries(
  ['PATH', 'HOME'].flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
);

test('a SIGHUP to the process that npm start names reloads the configuration', async (t) => {
  const cache = await createFolder(t);
  const config = join(cache, 'f.yaml');
  await writeFile(config, 'registries: {apps.local: {default: true}}');
  const env = {
    ...npmEnvironment,
    BACKREF_CONFIG: config,
    BACKREF_LISTEN_HOST: '127.0.0.1',
    BACKREF_LISTEN_PORT: '0',
    BACKREF_STORAGE_PATH: cache,
  };
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
  const cache = await createFolder(t);
  const env = {
    ...npmEnvironment,
    BACKREF_LISTEN_HOST: '127.0.0.1',
    BACKREF_LISTEN_PORT: '0',
    BACKREF_STORAGE_PATH: cache,
  };
  const npm = startProgram(t, 'npm', ['start'], {cwd: PROJECT, env});
  const [, url] = await npm.prints(/listens on (http:\S+)/);
  t.is((await fetch(`${url}/v2/`)).status, 200);
  npm.child.kill('SIGTERM');
  t.is(await npm.ended, 0);
  t.is(npm.printed().stderr, '');
  await t.throwsAsync(fetch(`${url}/v2/`), {message: 'fetch failed'});
});
