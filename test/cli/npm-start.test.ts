import {resolve} from 'node:path';
import test from 'ava';
import {startProgram} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const PROJECT = resolve(import.meta.dirname, '../..');

/** What npm needs to run, and nothing of what it has told this process. */
const npmEnvironment = Object.fromEntries(
  ['PATH', 'HOME'].flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
);

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
