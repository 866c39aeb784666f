import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
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
