import {once} from 'node:events';
import {rename, writeFile} from 'node:fs/promises';
import {createServer as createHttpServer} from 'node:http';
import {type AddressInfo, createServer} from 'node:net';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ownPort} from '../../rig/port.ts';
import {call, type RunningCommand, run, start} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';
import {writeTls} from '../support/tls-files.ts';

const ANYWHERE = {BACKREF_LISTEN_HOST: '127.0.0.1', BACKREF_LISTEN_PORT: '0'};
const LISTENS = /listens on (http:\/\/127\.0\.0\.1:(\d+))/;

/** A TCP server that takes connections and never answers. */
async function silence(t: ExecutionContext): Promise<{port: number; asked: Promise<unknown>}> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sockets = new Set<{destroy(): void}>();
  const asked = new Promise((resolve) => {
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.on('error', () => {}).once('data', resolve);
    });
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {port: (server.address() as AddressInfo).port, asked};
}

/** Ends a server with a signal, after which it has written nothing to stderr. */
async function endsWith0(t: ExecutionContext, server: RunningCommand, signal: NodeJS.Signals): Promise<void> {
  server.child.kill(signal);
  t.is(await server.ended, 0);
  t.is(server.printed().stderr, '');
}

test('serve prints where it listens, what it serves, where it stores and how to pull; SIGTERM ends it with 0', async (t) => {
  const cwd = await createFolder(t);
  const server = start(t, ['serve'], {cwd, env: ANYWHERE});
  const [, url, port] = await server.prints(LISTENS);
  await server.prints(/Pull through it/);
  const {stdout} = server.printed();
  t.true(stdout.includes(join(cwd, 'data')), stdout);
  t.regex(stdout, /docker\.io +https:\/\/registry-1\.docker\.io +the default; docker\.io, index\.docker\.io/);
  t.regex(stdout, /public\.ecr\.aws +https:\/\/public\.ecr\.aws/);
  t.true(stdout.includes(`docker pull localhost:${port}/alpine`));
  t.is((await fetch(`${url}/v2/`)).status, 200);
  await endsWith0(t, server, 'SIGTERM');
});

test('serve prints what a push does; SIGINT ends it with 0', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(
    join(cwd, 'f.yaml'),
    'registries: {apps.local: {default: true}, r.test: {upstream: {url: https://r.test}, push: through}}',
  );
  const server = start(t, ['serve', '--config', 'f.yaml'], {cwd, env: ANYWHERE});
  await server.prints(/Pull through it: .*REPOSITORY:TAG/);
  const {stdout} = server.printed();
  t.regex(stdout, /apps\.local +hosted here, push: local +the default; apps\.local/);
  t.regex(stdout, /r\.test +https:\/\/r\.test, push: through +r\.test/);
  await endsWith0(t, server, 'SIGINT');
});

test('serve warns that pushes are refused on an address that others can reach', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'f.yaml'), 'registries: {apps.local: {}}');
  // The system takes this for 127.0.0.1, backref for any name.
  const env = {...ANYWHERE, BACKREF_LISTEN_HOST: '127.1'};
  const server = start(t, ['serve', '--config', 'f.yaml'], {cwd, env});
  const [line] = await server.prints(/^.*access\.rules: pushes to .*$/m);
  t.regex(line, /warn/i);
  t.regex(line, /pushes to apps\.local are refused on 127\.1:0/);
});

test('a second signal ends it at once, with the code that a shell expects', async (t) => {
  for (const [signal, code] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    const cwd = await createFolder(t);
    const upstream = await silence(t);
    const url = `http://127.0.0.1:${upstream.port}`;
    await writeFile(
      join(cwd, 'f.yaml'),
      `registries: {r.test: {default: true, upstream: {url: "${url}", insecure: true, timeouts: {headers: 10m}}}}`,
    );
    const server = start(t, ['serve', '--config', 'f.yaml'], {cwd, env: ANYWHERE});
    const [, address] = await server.prints(LISTENS);
    const unanswered = fetch(`${address}/v2/app/manifests/latest`).catch(() => undefined);
    await upstream.asked;
    server.child.kill(signal);
    await server.prints(/finishing requests/);
    server.child.kill(signal);
    t.is(await server.ended, code);
    await unanswered;
  }
});

test('with the format json every line that it prints is an object', async (t) => {
  const env = {...ANYWHERE, BACKREF_LOG_FORMAT: 'json'};
  const server = start(t, ['serve'], {cwd: await createFolder(t), env});
  const [, url] = await server.prints(/"url":"([^"]+)"/);
  await fetch(`${url}/v2/_catalog`, {headers: {authorization: 'Basic aHVudGVyMg=='}});
  await server.prints(/request\.end/);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
  const {stdout} = server.printed();
  const entries = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.deepEqual(
    entries.map(({event}) => event),
    ['server.listening', 'request.end', 'server.stopping'],
  );
  t.is(typeof entries[1]?.id, 'string');
  t.notRegex(stdout, /aHVudGVyMg/);
});

test('a port in use is reported as such and ends with 1', async (t) => {
  const taken = await silence(t);
  const env = {...ANYWHERE, BACKREF_LISTEN_PORT: String(taken.port)};
  const {code, stderr} = await run(t, ['serve'], {cwd: await createFolder(t), env});
  t.is(code, 1);
  t.is(
    stderr,
    `Port ${taken.port} of 127.0.0.1 is in use: stop the program that listens there, or choose another port with listen.port or BACKREF_LISTEN_PORT.\n`,
  );
});

test('a folder that cannot be written to is reported as such and ends with 1', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'file'), '');
  const env = {...ANYWHERE, BACKREF_STORAGE_BLOBS_PATH: './file/data'};
  const {code, stderr} = await run(t, ['serve'], {cwd, env});
  t.is(code, 1);
  t.regex(
    stderr,
    /^The folder \.\/file\/data cannot be written to \(ENOTDIR\): .* BACKREF_STORAGE_BLOBS_PATH\.\n$/,
  );
});

test('a faulty configuration starts nothing and ends with 2', async (t) => {
  const {code, stdout, stderr} = await run(t, ['serve'], {
    cwd: await createFolder(t),
    env: {BACKREF_LISTEN_PORT: 'x'},
  });
  t.is(code, 2);
  t.is(stdout, '');
  t.regex(stderr, /BACKREF_LISTEN_PORT/);
});

test('health recognises that another program answers', async (t) => {
  const other = createHttpServer((_request, response) => {
    response.setHeader('content-type', 'application/json').end('{}');
  });
  other.listen(0, '127.0.0.1');
  await once(other, 'listening');
  t.teardown(() => other.close());
  const {port} = other.address() as AddressInfo;
  const env = {...ANYWHERE, BACKREF_LISTEN_PORT: String(port)};
  const {code, stderr} = await call(['health'], env);
  t.is(code, 1);
  t.regex(
    stderr,
    /\/readyz is answered by a program other than backref \(status 200\): check what listens there/,
  );
});

test('health says why a server is not ready', async (t) => {
  const cwd = await createFolder(t);
  const server = start(t, ['serve'], {cwd, env: ANYWHERE});
  const [, , port] = await server.prints(LISTENS);
  await rename(join(cwd, 'data/blobs'), join(cwd, 'data/unmounted'));
  const env = {BACKREF_LISTEN_PORT: String(port)};
  t.deepEqual(await call(['health'], env), {
    code: 1,
    stdout: '',
    stderr: `http://127.0.0.1:${port}/readyz is not ready: the blob store is missing or cannot be read\n`,
  });
});

test('health exits with 0 while the server is ready, and with 1 when it does not answer', async (t) => {
  const cwd = await createFolder(t);
  // Nobody else may come to listen there.
  const env = {...ANYWHERE, BACKREF_LISTEN_PORT: String(await ownPort())};
  const server = start(t, ['serve'], {cwd, env});
  await server.prints(LISTENS);
  t.like(await run(t, ['health'], {cwd, env}), {code: 0, stdout: '', stderr: ''});
  server.child.kill('SIGTERM');
  await server.ended;
  const {code, stderr} = await call(['health'], env);
  t.is(code, 1);
  t.regex(stderr, /does not answer/);
});

test('health asks a server with TLS, whatever names are in its certificate, and one behind a Unix socket', async (t) => {
  const {paths} = await writeTls(t);
  const port = await ownPort();
  for (const [listen, listens] of [
    [
      {host: '127.0.0.1', port, tls: {cert: paths.cert, key: paths.key}},
      /listens on https:\/\/127\.0\.0\.1:/,
    ],
    [
      [{port: 0, host: '127.0.0.1', serve: 'admin'}, {socket: './backref.sock'}],
      /listens on unix:\.\/backref\.sock/,
    ],
  ] as const) {
    const cwd = await createFolder(t);
    await writeFile(join(cwd, 'f.yaml'), JSON.stringify({listen}));
    const server = start(t, ['serve', '--config', 'f.yaml'], {cwd});
    await server.prints(listens);
    t.like(await run(t, ['health', '--config', 'f.yaml'], {cwd}), {code: 0, stdout: '', stderr: ''});
    server.child.kill('SIGTERM');
    await server.ended;
    const {code, stderr} = await run(t, ['health', '--config', 'f.yaml'], {cwd});
    t.is(code, 1);
    t.regex(stderr, /does not answer/);
  }
});

test('a server whose new key pair cannot be used stays healthy', async (t) => {
  const {paths, write} = await writeTls(t);
  const cwd = await createFolder(t);
  const listen = {host: '127.0.0.1', port: await ownPort(), tls: {cert: paths.cert, key: paths.key}};
  await writeFile(join(cwd, 'f.yaml'), JSON.stringify({listen}));
  const server = start(t, ['serve', '--config', 'f.yaml'], {cwd});
  await server.prints(/listens on https:/);
  await write({key: ''});
  t.like(await run(t, ['health', '--config', 'f.yaml'], {cwd}), {code: 0, stderr: ''});
  const {code, stderr} = await run(t, ['config', 'check', '--config', 'f.yaml'], {cwd});
  t.is(code, 2);
  t.regex(stderr, /listen\.tls\.key.*\n.*names a file that has no private key in PEM/);
});

test('serve says what is wrong with a Unix socket', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'b.sock'), 'precious');
  await writeFile(
    join(cwd, 'f.yaml'),
    JSON.stringify({listen: [{host: '127.0.0.1', port: 0}, {socket: './b.sock'}]}),
  );
  const {code, stderr} = await run(t, ['serve', '--config', 'f.yaml'], {cwd});
  t.is(code, 1);
  t.is(
    stderr,
    'The file ./b.sock is not a socket: remove it, or choose another path with socket in listen.\n',
  );
});
