import {once} from 'node:events';
import {mkdir, rename, rm, symlink, writeFile} from 'node:fs/promises';
import type {ServerResponse} from 'node:http';
import {Agent, request} from 'node:https';
import {connect as connectPlainly} from 'node:net';
import {join} from 'node:path';
import {type ConnectionOptions, connect, type TLSSocket} from 'node:tls';
import test, {type ExecutionContext} from 'ava';
import type {Clock} from '../../src/clock.ts';
import type {EventMap} from '../../src/events.ts';
import {createEvents} from '../../src/events.ts';
import type {Entrance} from '../../src/http/entrance.ts';
import {createLimits} from '../../src/http/limits.ts';
import {createListener} from '../../src/http/listener.ts';
import type {TlsPaths} from '../../src/http/tls-files.ts';
import {type Backref, createMovableClock, LIMITS, startBackref} from '../support/backref.ts';
import {
  AUTHORITY,
  CLIENT_TLS,
  OTHER_AUTHORITY,
  OTHER_SERVER_TLS,
  SERVER_TLS,
} from '../support/certificates.ts';
import {blobAnswer, randomBlob} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {createLookingClock, type LookingClock, writeTls} from '../support/tls-files.ts';
import {entranceOf} from './http-server.ts';

const CA = [AUTHORITY, OTHER_AUTHORITY];

/** A server that listens with TLS, and what it reports of certificates. */
async function startSecure(
  t: ExecutionContext,
  tls: TlsPaths,
  clock: LookingClock = createLookingClock(),
): Promise<{proxy: Backref; reports: Partial<EventMap['certificate.rejected'][0]>[]; expired: unknown[]}> {
  const proxy = await startBackref(t, {registries: [{}], listener: {tls}, clock});
  const reports: EventMap['certificate.rejected'][0][] = [];
  const expired: unknown[] = [];
  proxy.server.events.on('certificate.rejected', (report) => void reports.push(report));
  proxy.server.events.on('certificate.expired', (report) => void expired.push(report));
  return {proxy, reports, expired};
}

/** A verified connection. */
async function connectTo(
  t: ExecutionContext,
  port: number,
  options: ConnectionOptions = {},
): Promise<TLSSocket> {
  const socket = connect({host: '127.0.0.1', port, ca: CA, ...options});
  t.teardown(() => socket.destroy());
  await once(socket, 'secureConnect');
  return socket;
}

/** The status that a new connection gets for a request, or the code of the error that it ends with. */
const statusOf = (port: number, options: ConnectionOptions = {}): Promise<unknown> =>
  new Promise((resolve) => {
    const agent = new Agent({keepAlive: false, maxCachedSessions: 0});
    const asked = request({host: '127.0.0.1', port, path: '/v2/', agent, ca: CA, ...options}, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
    asked.end();
  });

const servedBy = async (t: ExecutionContext, port: number): Promise<string> => {
  const socket = await connectTo(t, port);
  const pem = socket.getPeerX509Certificate()?.toString() ?? '';
  socket.destroy();
  return pem;
};

test('a blob is pulled by https, also from memory in several writes, and the address says so', async (t) => {
  const blob = randomBlob(2 ** 20);
  const {paths} = await writeTls(t);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], listener: {tls: paths}});
  t.is(proxy.url, `https://127.0.0.1:${proxy.port}`);
  // From the upstream, from the store, and then from memory.
  for (let time = 0; time < 4; time += 1) {
    const body = await new Promise<Buffer>((resolve, reject) => {
      request(`${proxy.url}/v2/app/blobs/${blob.digest}`, {ca: CA, agent: false}, async (response) =>
        resolve(Buffer.concat(await response.toArray())),
      )
        .once('error', reject)
        .end();
    });
    t.true(body.equals(blob.bytes));
  }
});

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`${version} is accepted`, async (t) => {
    const {proxy} = await startSecure(t, (await writeTls(t)).paths);
    const socket = await connectTo(t, proxy.port, {minVersion: version, maxVersion: version});
    t.is(socket.getProtocol(), version);
    t.is(await statusOf(proxy.port, {minVersion: version, maxVersion: version}), 200);
  });
}

for (const version of ['TLSv1', 'TLSv1.1'] as const) {
  test(`${version} is refused, also after the certificate has been replaced`, async (t) => {
    const clock = createLookingClock();
    const {paths, write} = await writeTls(t);
    const {proxy} = await startSecure(t, paths, clock);
    const refused = async () => {
      const failed = new Promise<void>((resolve) => {
        proxy.server.events.on('client.handshake-failed', ({reason}) => {
          if (reason.includes('unsupported protocol')) resolve();
        });
      });
      t.is(await statusOf(proxy.port, old), 'EPROTO');
      await failed;
    };
    const old = {minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0'} as const;
    await refused();
    await write(OTHER_SERVER_TLS);
    await clock.look();
    t.is(await servedBy(t, proxy.port), OTHER_SERVER_TLS.cert);
    await refused();
  });
}

test('a request in plain HTTP is told to use https, and the next client is served', async (t) => {
  const {proxy} = await startSecure(t, (await writeTls(t)).paths);
  const failed = once(proxy.server.events, 'client.handshake-failed');
  const socket = connectPlainly(proxy.port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.on('error', () => {});
  socket.write('GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n');
  const text = Buffer.concat(await socket.toArray().catch(() => [])).toString('latin1');
  t.regex(text, /^HTTP\/1\.1 400 Bad Request\r\n/);
  t.regex(text, /this port speaks TLS and got a request in plain HTTP: use https:\/\//);
  const [{address}] = await failed;
  t.is(address, '127.0.0.1');
  t.is(await statusOf(proxy.port), 200);
});

test('a client that stops in its handshake does not keep the server from closing', async (t) => {
  const {proxy} = await startSecure(t, (await writeTls(t)).paths);
  const socket = connectPlainly(proxy.port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'connect');
  const closed = once(socket, 'close');
  await proxy.server.close();
  await closed;
  t.is(proxy.clock.monotonic(), 0);
});

for (const workers of [1, 2]) {
  test(`a client that sends no request after its handshake does not keep the server from closing, with ${workers} threads`, async (t) => {
    const {paths} = await writeTls(t);
    const movable = createMovableClock();
    const grace = 2000;
    const clock = {
      ...movable,
      after: (ms: number, call: () => void) => (ms === grace ? () => {} : movable.after(ms, call)),
    };
    const config = {workers, shutdown: {grace}};
    const proxy = await startBackref(t, {registries: [{}], listener: {tls: paths}, clock, config});
    // So many that each thread has some.
    const clients = await Promise.all(Array.from({length: 20}, () => connectTo(t, proxy.port)));
    // Some may be reset.
    const closed = clients.map(
      (client) => new Promise((resolve) => client.on('error', () => {}).once('close', resolve)),
    );
    await proxy.server.close();
    await Promise.all(closed);
    t.pass();
  });
}

test('a new certificate is used by the next connection, and those that are open go on', async (t) => {
  const clock = createLookingClock();
  const {paths, write} = await writeTls(t);
  const {proxy} = await startSecure(t, paths, clock);
  const before = await connectTo(t, proxy.port);
  const ask = async () => {
    before.write('GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n');
    const [answer] = await once(before, 'data');
    return String(answer).split('\r\n')[0];
  };
  t.is(await ask(), 'HTTP/1.1 200 OK');
  const loaded = once(proxy.server.events, 'certificate.loaded');
  await write(OTHER_SERVER_TLS);
  t.is(await servedBy(t, proxy.port), SERVER_TLS.cert);
  await clock.look();
  t.like((await loaded)[0], {listener: `127.0.0.1:${proxy.port}`, path: paths.cert});
  t.is(await servedBy(t, proxy.port), OTHER_SERVER_TLS.cert);
  t.is(await ask(), 'HTTP/1.1 200 OK');
});

test('files that are exchanged by a symbolic link to their folder are noticed, as in a Kubernetes volume', async (t) => {
  const volume = await createFolder(t);
  for (const [name, pair] of [
    ['..one', SERVER_TLS],
    ['..two', OTHER_SERVER_TLS],
  ] as const) {
    await mkdir(join(volume, name));
    await writeFile(join(volume, name, 'tls.crt'), pair.cert);
    await writeFile(join(volume, name, 'tls.key'), pair.key);
  }
  await symlink('..one', join(volume, '..data'));
  for (const name of ['tls.crt', 'tls.key']) await symlink(join('..data', name), join(volume, name));
  const clock = createLookingClock();
  const paths = {cert: join(volume, 'tls.crt'), key: join(volume, 'tls.key'), clientCa: undefined};
  const {proxy} = await startSecure(t, paths, clock);
  t.is(await servedBy(t, proxy.port), SERVER_TLS.cert);
  await symlink('..two', join(volume, '..data_tmp'));
  await rename(join(volume, '..data_tmp'), join(volume, '..data'));
  await rm(join(volume, '..one'), {recursive: true});
  await clock.look();
  t.is(await servedBy(t, proxy.port), OTHER_SERVER_TLS.cert);
});

const bad: [title: string, texts: {cert?: string; key?: string}, problem: RegExp, file: 'cert' | 'key'][] = [
  [
    'a key of another certificate',
    {cert: OTHER_SERVER_TLS.cert},
    /has the key of another certificate/,
    'key',
  ],
  ['a certificate that is none', {cert: 'nonsense'}, /has no certificate in PEM/, 'cert'],
  ['an empty key', {key: ''}, /has no private key in PEM/, 'key'],
];

for (const [title, texts, problem, file] of bad) {
  test(`${title} is reported once, and the pair before stays in use`, async (t) => {
    const clock = createLookingClock();
    const {paths, write} = await writeTls(t);
    const {proxy, reports} = await startSecure(t, paths, clock);
    await write(texts);
    await clock.look();
    t.deepEqual(reports, []);
    for (let count = 0; count < 3; count++) await clock.look();
    t.is(reports.length, 1);
    t.like(reports[0], {listener: `127.0.0.1:${proxy.port}`, path: paths[file]});
    t.regex(reports[0]?.problem ?? '', problem);
    t.is(await servedBy(t, proxy.port), SERVER_TLS.cert);
    await write(OTHER_SERVER_TLS);
    await clock.look();
    t.is(await servedBy(t, proxy.port), OTHER_SERVER_TLS.cert);
    t.is(reports.length, 1);
  });
}

test('a certificate that is replaced before its key is not reported when the key follows', async (t) => {
  const clock = createLookingClock();
  const {paths, write} = await writeTls(t);
  const {proxy, reports} = await startSecure(t, paths, clock);
  await write({cert: OTHER_SERVER_TLS.cert});
  await clock.look();
  await write({key: OTHER_SERVER_TLS.key});
  await clock.look();
  t.is(await servedBy(t, proxy.port), OTHER_SERVER_TLS.cert);
  t.deepEqual(reports, []);
});

test('a file that is gone is reported, and the pair before stays in use', async (t) => {
  const clock = createLookingClock();
  const {paths} = await writeTls(t);
  const {proxy, reports} = await startSecure(t, paths, clock);
  await rm(paths.key);
  for (let count = 0; count < 2; count++) await clock.look();
  t.deepEqual(
    reports.map(({path, problem}) => [path, problem]),
    [[paths.key, 'cannot be read (ENOENT)']],
  );
  t.is(await statusOf(proxy.port), 200);
});

test('a certificate that expires is reported once, and stays in use', async (t) => {
  const clock = createLookingClock();
  const {paths} = await writeTls(t);
  const {proxy, expired} = await startSecure(t, paths, clock);
  await clock.look();
  t.deepEqual(expired, []);
  clock.moveWall(101 * 365 * 86_400_000);
  for (let count = 0; count < 2; count++) await clock.look();
  t.is(expired.length, 1);
  t.is(await servedBy(t, proxy.port), SERVER_TLS.cert);
});

test('metrics say when the certificate expires, and count pairs that cannot be used and failed handshakes', async (t) => {
  const clock = createLookingClock();
  const {paths, write} = await writeTls(t);
  const {proxy} = await startSecure(t, paths, clock);
  await write({key: ''});
  for (let count = 0; count < 2; count++) await clock.look();
  await statusOf(proxy.port, {ca: [], maxVersion: 'TLSv1.1', minVersion: 'TLSv1'});
  const text = await new Promise<string>((resolve) => {
    request(`${proxy.url}/metrics`, {ca: CA, agent: false}, async (response) =>
      resolve(Buffer.concat(await response.toArray()).toString()),
    ).end();
  });
  const labels = `listener="127.0.0.1:${proxy.port}"`;
  const [, expiry] =
    new RegExp(`backref_certificate_expiry_timestamp_seconds\\{${labels}\\} (\\S+)`).exec(text) ?? [];
  t.is(Number(expiry), Date.parse('2126-10-29T22:15:19Z') / 1000);
  t.true(text.includes(`backref_certificates_rejected_total{${labels}} 1\n`));
  t.regex(text, /backref_handshake_failures_total [1-9]/);
});

test('a server does not start with a pair that cannot be used', async (t) => {
  const {paths, write} = await writeTls(t);
  await write({key: OTHER_SERVER_TLS.key});
  await t.throwsAsync(startSecure(t, paths), {message: /tls\.key has the key of another certificate/});
});

/** A listener alone that asks for client certificates, and the entrances of the requests that it lets in. */
async function startAsking(
  t: ExecutionContext,
  {clock = createLookingClock(), answer = (response) => response.end()}: ListenerOptions = {},
) {
  const {paths, write} = await writeTls(t, {clientCa: OTHER_AUTHORITY});
  const seen: Entrance[] = [];
  const events = createEvents();
  const failures: string[] = [];
  events.on('client.handshake-failed', ({reason}) => void failures.push(reason));
  const listener = createListener({
    app: {
      handle(_request, response, entrance) {
        seen.push(entrance);
        answer(response);
      },
      connection: () => () => false,
    },
    address: {host: '127.0.0.1', port: 0},
    isShared: false,
    tls: paths,
    entrance: entranceOf({isSecure: true}),
    sendTimeout: 60_000,
    limits: createLimits(LIMITS, {clock, events}),
    clock,
    events,
  });
  t.teardown(() => listener.close(0));
  const address = await listener.listen();
  return {port: 'port' in address ? address.port : 0, seen, failures, events, write};
}

interface ListenerOptions {
  clock?: Clock;
  answer?: (response: ServerResponse) => void;
}

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  const only = {minVersion: version, maxVersion: version} as const;

  test(`a client with a certificate of tls.clientCa is known by its names, over ${version}`, async (t) => {
    const {port, seen} = await startAsking(t);
    t.is(await statusOf(port, {...only, ...CLIENT_TLS}), 200);
    t.deepEqual(seen[0]?.certificate, {
      subject: 'O=Example,CN=ci',
      commonName: 'ci',
      dnsNames: ['ci.example'],
      emails: ['ci@example.com'],
      uris: ['spiffe://example.org/ci, DNS:admin.example'],
    });
  });

  test(`a client without a certificate is served, without names, over ${version}`, async (t) => {
    const {port, seen, failures} = await startAsking(t);
    t.is(await statusOf(port, only), 200);
    t.is(seen[0]?.certificate, undefined);
    t.deepEqual(failures, []);
  });

  test(`a client with a certificate of another authority is disconnected before its request, over ${version}`, async (t) => {
    const {port, seen, failures} = await startAsking(t);
    t.regex(String(await statusOf(port, {...only, ...SERVER_TLS})), /ECONNRESET|EPIPE|SOCKET/);
    t.deepEqual(seen, []);
    t.regex(failures[0] ?? '', /its certificate does not verify: /);
    t.is(await statusOf(port, {...only, ...CLIENT_TLS}), 200);
  });
}

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`a client whose authority was removed is refused, also if it resumes its session, over ${version}`, async (t) => {
    const clock = createLookingClock();
    const {port, seen, write} = await startAsking(t, {clock});
    const own = {...CLIENT_TLS, minVersion: version, maxVersion: version};
    const ask = async (socket: TLSSocket) => {
      socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      await once(socket, 'data');
    };
    const first = await connectTo(t, port, own);
    const [[session]] = await Promise.all([
      version === 'TLSv1.3' ? once(first, 'session') : [first.getSession()],
      ask(first),
    ]);
    const resumed = await connectTo(t, port, {...own, session});
    await ask(resumed);
    t.true(resumed.isSessionReused());
    t.is(seen[1]?.certificate?.commonName, 'ci');
    await write({clientCa: AUTHORITY});
    await clock.look();
    for (const options of [own, {...own, session}]) {
      const refused = await connectTo(t, port, options).catch(() => undefined);
      refused?.on('error', () => {});
      if (refused && !refused.destroyed) await once(refused.resume(), 'close').catch(() => {});
    }
    t.is(seen.length, 2);
    t.is(await statusOf(port), 200);
  });
}

test('a client that reads nothing of its response is disconnected', async (t) => {
  let check = () => {};
  const clock = createLookingClock();
  const after: Clock['after'] = (ms, call) => {
    if (ms !== 15_000) return clock.after(ms, call);
    check = call;
    return () => {};
  };
  const answer = (response: ServerResponse) => void response.write(Buffer.alloc(32 * 2 ** 20));
  const {port, events} = await startAsking(t, {clock: {...clock, after}, answer});
  const socket = await connectTo(t, port);
  const closed = once(socket, 'close');
  socket.on('error', () => {});
  let isStalled = false;
  events.once('client.stalled', ({address}) => {
    isStalled = address === '127.0.0.1';
  });
  socket.pause();
  socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  while (!isStalled) {
    check();
    await new Promise(setImmediate);
  }
  socket.resume();
  await closed;
  t.pass();
});
