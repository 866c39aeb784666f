import {spawn} from 'node:child_process';
import {subscribe, unsubscribe} from 'node:diagnostics_channel';
import {once} from 'node:events';
import {stat, writeFile} from 'node:fs/promises';
import {type IncomingHttpHeaders, request} from 'node:http';
import {connect, createServer, type ListenOptions, type Server} from 'node:net';
import {dirname, join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ownPort} from '../rig/port.ts';
import type {ListenAddress} from '../src/address.ts';
import type {ListenerConfig} from '../src/config.ts';
import {canSharePorts} from '../src/http/accept.ts';
import {type Backref, startBackref} from './support/backref.ts';
import {startProgram} from './support/command.ts';
import {imageManifest, manifestAnswer} from './support/content.ts';
import {createFolder} from './support/folder.ts';
import {listeningSockets} from './support/listening-sockets.ts';
import {createScriptedUpstream} from './support/scripted-upstream.ts';

const listenerAt = (address: ListenAddress, differences: Partial<ListenerConfig> = {}): ListenerConfig => ({
  address,
  serve: 'main',
  tls: undefined,
  sendTimeout: 60_000,
  trustedProxies: [],
  ...differences,
});

const ANY_PORT = {host: '127.0.0.1', port: 0};
const ADMIN = listenerAt(ANY_PORT, {serve: 'admin'});

interface Got {
  status: number | undefined;
  headers: IncomingHttpHeaders;
  text: string;
}

const ask = (
  to: {port?: number | undefined; socketPath?: string | undefined},
  path: string,
  options: {method?: string; headers?: Record<string, string>} = {},
): Promise<Got> =>
  new Promise((resolve, reject) => {
    const {port, socketPath} = to;
    const place = socketPath === undefined ? {host: '127.0.0.1', port: port ?? 0} : {socketPath};
    request({...place, path, agent: false, ...options}, async (response) => {
      const text = Buffer.concat(await response.toArray()).toString();
      resolve({status: response.statusCode, headers: response.headers, text});
    })
      .once('error', reject)
      .end();
  });

async function socketIn(t: ExecutionContext): Promise<{socket: string; socketMode: number}> {
  return {socket: join(await createFolder(t), 'backref.sock'), socketMode: 0o660};
}

test('each listener serves the same registries, and is named with its address', async (t) => {
  const unix = await socketIn(t);
  const proxy = await startBackref(t, {
    registries: [{}],
    otherListeners: [listenerAt(ANY_PORT), listenerAt(unix), ADMIN],
  });
  const [first, second, third, admin] = proxy.server.addresses;
  t.is(first?.url, proxy.url);
  t.regex(second?.url ?? '', /^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
  t.like(third, {url: `unix:${unix.socket}`, socket: unix.socket, host: undefined, port: undefined});
  t.is(admin?.serves, 'admin');
  const path = '/v2/app/blobs/uploads/';
  for (const to of [first, second, {socketPath: unix.socket}])
    t.is((await ask({...to}, path, {method: 'POST'})).status, 202);
});

test('an admin listener serves metrics and probes, and no registry', async (t) => {
  const proxy = await startBackref(t, {registries: [{}], otherListeners: [ADMIN]});
  const admin = proxy.server.addresses[1] ?? {};
  for (const path of ['/metrics', '/healthz', '/readyz']) t.is((await ask(admin, path)).status, 200, path);
  for (const path of ['/v2/', '/v2/_catalog', '/v2/app/tags/list', '/v2/app/manifests/1']) {
    const got = await ask(admin, path);
    t.is(got.status, 404, path);
    t.regex(
      got.text,
      /is not an endpoint of this listener, which serves no registry \(listen\.serve: admin\)/,
    );
  }
  t.is((await ask(admin, '/v2/app/blobs/uploads/', {method: 'POST'})).status, 404);
});

test('with an admin listener, the others serve probes, and no metrics', async (t) => {
  const proxy = await startBackref(t, {registries: [{}], otherListeners: [ADMIN]});
  t.is((await proxy.ask('/metrics')).status, 404);
  for (const path of ['/healthz', '/readyz', '/v2/']) t.is((await proxy.ask(path)).status, 200, path);
});

test('without an admin listener, every listener serves metrics', async (t) => {
  const proxy = await startBackref(t, {registries: [{}], otherListeners: [listenerAt(ANY_PORT)]});
  for (const address of proxy.server.addresses) t.is((await ask(address, '/metrics')).status, 200);
});

test('with rules, metrics are for who may operate the server, and on an admin listener for everybody', async (t) => {
  const rule = (who: string, may: 'pull' | 'admin') => ({who: [who], where: ['**'], may: [may]});
  const robots = async (proxy: Backref) => {
    const commands = await proxy.server.commands();
    const create = (name: string, may: string) =>
      commands.createRobot({name, may: [may], on: ['**'], expiresIn: undefined});
    return Promise.all([create('prometheus', 'admin'), create('ci', 'pull')]);
  };
  const access = {rules: [rule('anonymous', 'pull')]};
  const proxy = await startBackref(t, {registries: [{}], config: {access}});
  t.is((await proxy.ask('/metrics')).status, 403, 'nobody can log in');
  const [prometheus, ci] = await robots(proxy);
  const as = (secret: string) => proxy.ask('/metrics', {headers: {Authorization: `Bearer ${secret}`}});
  t.is((await proxy.ask('/metrics')).status, 401);
  t.is((await as(ci.secret)).status, 403);
  const got = await as(prometheus.secret);
  t.is(got.status, 200);
  t.regex(got.body.toString(), /^backref_/m);
  for (const path of ['/healthz', '/readyz'])
    t.is((await proxy.ask(path)).status, 200, 'probes need nothing');
  const audited = await startBackref(t, {registries: [{}], config: {access: {...access, mode: 'audit'}}});
  t.is((await audited.ask('/metrics')).status, 200);
  const open = await startBackref(t, {
    registries: [{}],
    config: {access: {rules: [rule('anonymous', 'admin')]}},
    otherListeners: [listenerAt(ANY_PORT)],
  });
  for (const address of open.server.addresses) t.is((await ask(address, '/metrics')).status, 200);
  const separate = await startBackref(t, {registries: [{}], config: {access}, otherListeners: [ADMIN]});
  t.is((await ask(separate.server.addresses[1] ?? {}, '/metrics')).status, 200);
});

test('when one listener cannot listen, the server does not start, and frees the others', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  t.teardown(() => taken.close());
  await once(taken, 'listening');
  const {port} = taken.address() as {port: number};
  const unix = await socketIn(t);
  const otherListeners = [listenerAt(unix), listenerAt({host: '127.0.0.1', port})];
  await t.throwsAsync(startBackref(t, {registries: [{}], otherListeners}), {code: 'EADDRINUSE'});
  const folder = await createFolder(t);
  const other = await startBackref(t, {registries: [{}], folder, otherListeners: [ADMIN]});
  t.is((await other.ask('/v2/')).status, 200);
});

test('the file of a Unix socket has the mode that is configured, and is removed at the end', async (t) => {
  const unix = {...(await socketIn(t)), socketMode: 0o600};
  const proxy = await startBackref(t, {registries: [{}], otherListeners: [listenerAt(unix)]});
  t.is((await stat(unix.socket)).mode & 0o777, 0o600);
  await proxy.server.close();
  await t.throwsAsync(stat(unix.socket), {code: 'ENOENT'});
});

test('a socket that a killed process left behind is replaced', async (t) => {
  const unix = await socketIn(t);
  const program = `require('net').createServer().listen(${JSON.stringify(unix.socket)}, () => console.log('listens'))`;
  const killed = startProgram(t, process.execPath, ['-e', program], {cwd: dirname(unix.socket)});
  await killed.prints(/listens/);
  killed.child.kill('SIGKILL');
  await killed.ended;
  t.true((await stat(unix.socket)).isSocket());
  await startBackref(t, {registries: [{}], otherListeners: [listenerAt(unix)]});
  t.is((await ask({socketPath: unix.socket}, '/v2/')).status, 200);
});

test('a socket on which a process listens is left to it', async (t) => {
  const unix = await socketIn(t);
  await startBackref(t, {registries: [{}], otherListeners: [listenerAt(unix)]});
  const second = startBackref(t, {registries: [{}], otherListeners: [listenerAt(unix)]});
  await t.throwsAsync(second, {code: 'EADDRINUSE'});
  t.is((await ask({socketPath: unix.socket}, '/v2/')).status, 200);
});

test('a file that is not a socket is not replaced', async (t) => {
  const unix = await socketIn(t);
  await writeFile(unix.socket, 'precious');
  const start = startBackref(t, {registries: [{}], otherListeners: [listenerAt(unix)]});
  await t.throwsAsync(start, {code: 'EEXIST'});
  t.is((await stat(unix.socket)).size, 8);
});

test('a push without rules is accepted from this machine alone, by loopback or a Unix socket, and not for a proxy', async (t) => {
  const unix = await socketIn(t);
  const proxy = await startBackref(t, {
    registries: [{}],
    otherListeners: [listenerAt(unix), listenerAt({host: '0.0.0.0', port: 0})],
  });
  const push = async (to: Parameters<typeof ask>[0], headers = {}) =>
    (await ask(to, '/v2/app/blobs/uploads/', {method: 'POST', headers})).status;
  const [loopback, , everywhere] = proxy.server.addresses;
  const socketPath = unix.socket;
  t.is(await push({...loopback}), 202);
  t.is(await push({socketPath}), 202);
  t.is(await push({...everywhere}), 403);
  for (const to of [{...loopback}, {socketPath}]) {
    t.is(await push(to, {'X-Forwarded-For': '127.0.0.1'}), 403);
    t.is(await push(to, {Forwarded: 'for=127.0.0.1'}), 403);
  }
});

test('an idle connection to a Unix socket does not keep the server from closing', async (t) => {
  const unix = await socketIn(t);
  const proxy = await startBackref(t, {registries: [{}], otherListeners: [listenerAt(unix)]});
  const idle = connect(unix.socket);
  t.teardown(() => idle.destroy());
  idle.write('GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n');
  await once(idle, 'data');
  const closed = once(idle, 'close');
  await proxy.server.close();
  await closed;
  t.pass();
});

/** So many that no socket is left without one. */
const MANY = 40;
const image = imageManifest();

test('four sockets listen on a port, where the system can share it', async (t) => {
  const proxy = await startBackref(t, {registries: [{}]});
  if (process.platform !== 'linux') return t.pass('the table of sockets is that of Linux');
  t.is(await listeningSockets(proxy.port), (await canSharePorts()) ? 4 : 1);
  await proxy.server.close();
  t.is(await listeningSockets(proxy.port), 0);
});

test('a port that another server has is not shared with it', async (t) => {
  const {port} = await startBackref(t, {registries: [{}]});
  const listener = {address: {host: '127.0.0.1', port}};
  await t.throwsAsync(startBackref(t, {registries: [{}], listener}), {code: 'EADDRINUSE'});
});

/** What a server listened with, as node's diagnostics channel says it. */
interface Listening {
  server: Server;
  options: ListenOptions;
}

/** Hears of everything that begins to listen in this process, until the test ends. */
function watchListening(t: ExecutionContext, heard: (listening: Listening) => void): void {
  const begun = new Map<Server, ListenOptions>();
  const begin = (message: unknown) => {
    const {server, options} = message as Listening;
    begun.set(server, options);
  };
  const end = (message: unknown) => {
    const {server} = message as Listening;
    heard({server, options: begun.get(server) ?? {}});
  };
  subscribe('tracing:net.server.listen:asyncStart', begin);
  subscribe('tracing:net.server.listen:asyncEnd', end);
  t.teardown(() => {
    unsubscribe('tracing:net.server.listen:asyncStart', begin);
    unsubscribe('tracing:net.server.listen:asyncEnd', end);
  });
}

test('a program that is being started and has a free port for a moment keeps no server from listening', async (t) => {
  const port = await ownPort();
  const holders: Promise<unknown>[] = [];
  watchListening(t, ({server, options}) => {
    if (options.port !== port || options.reusePort) return;
    // Node's types do not know that a handle can be passed on.
    const {_handle: handle} = server as Server & {_handle: never};
    const holder = spawn(process.execPath, ['--version'], {stdio: ['ignore', 'ignore', 'ignore', handle]});
    holders.push(once(holder, 'exit'));
  });
  const proxy = await startBackref(t, {registries: [{}], listener: {address: {host: '127.0.0.1', port}}});
  t.is((await ask(proxy, '/v2/')).status, 200);
  t.is(holders.length, (await canSharePorts()) ? 1 : 0);
  await Promise.all(holders);
});

test('a port that the system chooses is shared from the first socket on, so that nobody takes it meanwhile', async (t) => {
  const heard: {port: number; isShared: boolean}[] = [];
  watchListening(t, ({server, options: {reusePort}}) => {
    const address = server.address();
    if (address && typeof address === 'object')
      heard.push({port: address.port, isShared: reusePort === true});
  });
  const listener = {address: {host: '127.0.0.1', port: 0}};
  const {port} = await startBackref(t, {registries: [{}], listener});
  const isShared = await canSharePorts();
  t.deepEqual(
    heard.filter((one) => one.port === port),
    Array.from({length: isShared ? 4 : 1}, () => ({port, isShared})),
  );
});

test('all sockets listen on one address of a host that may have several', async (t) => {
  const heard: {asked: string | undefined; got: string}[] = [];
  const port = await ownPort();
  watchListening(t, ({server, options: {host: asked, reusePort}}) => {
    const address = server.address();
    if (reusePort && address && typeof address === 'object' && address.port === port)
      heard.push({asked, got: address.address});
  });
  await startBackref(t, {registries: [{}], listener: {address: {host: 'localhost', port}}});
  const [first, ...others] = heard;
  t.is(others.length, (await canSharePorts()) ? 3 : 0);
  for (const {asked} of others) t.is(asked, first?.got);
});

test('the connections of all sockets are served, and end with the server once they are answered', async (t) => {
  const wait = Promise.withResolvers<void>();
  t.teardown(wait.resolve);
  const answer = {...manifestAnswer(image), before: wait.promise};
  const upstream = await createScriptedUpstream(t, [{request: 'GET /v2/library/app/manifests/1', answer}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  let begun = 0;
  const allBegun = new Promise<void>((resolve) => {
    proxy.server.events.on('request.start', () => {
      begun += 1;
      if (begun === MANY) resolve();
    });
  });
  const answers = Array.from({length: MANY}, () => ask(proxy, '/v2/app/manifests/1'));
  await allBegun;
  let isClosed = false;
  const closed = proxy.server.close().then(() => {
    isClosed = true;
  });
  await Promise.all(
    Array.from({length: MANY}, () => t.throwsAsync(ask(proxy, '/v2/'), {code: 'ECONNREFUSED'})),
  );
  t.false(isClosed);
  wait.resolve();
  for (const {status} of await Promise.all(answers)) t.is(status, 200);
  await closed;
});
