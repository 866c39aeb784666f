import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {listenFault} from '../../src/cli/faults.ts';
import {Occupied} from '../../src/storage/folder-lock.ts';
import {configOf} from '../support/backref.ts';
import {start} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const LISTENS = /listens on (http:\/\/127\.0\.0\.1:\d+)/;

/** `backref serve` that runs `fault` when it is sent SIGUSR2. */
async function serveWith(t: ExecutionContext, fault: string) {
  const cwd = await createFolder(t);
  const preload = join(cwd, 'preload.mjs');
  await writeFile(preload, `process.on('SIGUSR2', () => { ${fault} });\n`);
  const env = {
    BACKREF_LISTEN_HOST: '127.0.0.1',
    BACKREF_LISTEN_PORT: '0',
    NODE_OPTIONS: `--import=${preload}`,
  };
  const server = start(t, ['serve'], {cwd, env});
  const [, url = ''] = await server.prints(LISTENS);
  return {...server, url};
}

for (const [what, fault, origin, line] of [
  ['a rejection', 'Promise.reject(new Error("planted"));', 'promise', /unhandled rejection.*planted/],
  ['an exception', 'throw new Error("planted");', 'exception', /unhandled exception.*planted/],
] as const) {
  test(`${what} that nothing handles is logged and counted, and serve continues`, async (t) => {
    const server = await serveWith(t, fault);
    server.child.kill('SIGUSR2');
    await server.prints(line);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    t.true(metrics.includes(`backref_faults_total{origin="${origin}"} 1`), metrics);
    server.child.kill('SIGTERM');
    t.is(await server.ended, 0);
    t.is(server.printed().stderr, '');
  });
}

test('serve continues when nobody reads its log any more', async (t) => {
  const server = await serveWith(t, '');
  server.child.stdout?.destroy();
  for (let count = 0; count < 3; count++) t.is((await fetch(`${server.url}/v2/`)).status, 200);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
});

const onSocket = configOf(
  {registries: [], listener: {address: {socket: '/run/backref.sock', socketMode: 0o660}}},
  '/data',
  0,
);
const systemError = (code: string, facts: object) => Object.assign(new Error(code), {code, ...facts});

test('an error of the start that is not about the Unix socket does not blame it', (t) => {
  t.is(
    listenFault(new Occupied('/data'), onSocket),
    'The server cannot start: another backref is using /data: stop it, or give this one a folder of its own with storage.path',
  );
  const ofDisk = systemError('EACCES', {path: '/data/meta.db'});
  t.is(listenFault(ofDisk, onSocket), 'The server cannot start: EACCES');
});

for (const property of ['address', 'path']) {
  test(`an error that names the Unix socket as its ${property} is about the socket`, (t) => {
    const fault = listenFault(systemError('EACCES', {[property]: '/run/backref.sock'}), onSocket);
    t.regex(fault, /^The socket \/run\/backref\.sock cannot be created \(EACCES\)/);
  });
}
