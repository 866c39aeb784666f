import {once} from 'node:events';
import {connect, Socket} from 'node:net';
import {connect as connectTls, type TLSSocket} from 'node:tls';
import test, {type ExecutionContext} from 'ava';
import type {Clock} from '../../src/clock.ts';
import type {Config} from '../../src/config.ts';
import {createEvents} from '../../src/events.ts';
import {createConnectionLimit} from '../../src/http/connection-limit.ts';
import {createLimits} from '../../src/http/limits.ts';
import {type Backref, createMovableClock, LIMITS, startBackref} from '../support/backref.ts';
import {AUTHORITY} from '../support/certificates.ts';
import {openRaw, type RawConnection} from '../support/raw-http.ts';
import {writeTls} from '../support/tls-files.ts';

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;

interface Started {
  proxy: Backref;
  /** Opens connections on which a request has been answered. */
  open(count: number): Promise<RawConnection[]>;
  /** What a new connection gets. */
  answer(request?: string, method?: string): ReturnType<RawConnection['answer']>;
}

async function start(
  t: ExecutionContext,
  connections: Config['limits']['connections'],
  options: {clock?: ReturnType<typeof createMovableClock>; trustedProxies?: string[]} = {},
): Promise<Started> {
  const config = {limits: {...LIMITS, connections}};
  const proxy = await startBackref(t, {registries: [{}], config, ...options});
  return {
    proxy,
    open: (count) =>
      Promise.all(
        Array.from({length: count}, async () => {
          const connection = await openRaw(t, proxy.port);
          connection.send(get('/v2/'));
          t.is((await connection.answer())?.status, 200);
          return connection;
        }),
      ),
    async answer(request = get('/v2/'), method = 'GET') {
      const connection = await openRaw(t, proxy.port);
      connection.send(request);
      return connection.answer(method);
    },
  };
}

/** The metrics, over a connection that is open. */
async function openedMetrics([connection]: readonly RawConnection[]) {
  connection?.send(get('/metrics'));
  const answer = await connection?.answer();
  if (!answer) throw new Error('the connection has ended');
  return answer;
}

/** Opens connections, one after the other, until one of them is served. */
async function served(answer: Started['answer']): Promise<void> {
  while ((await answer())?.status !== 200) await new Promise(setImmediate);
}

test('connections in total: the last one allowed is served, and the next one is answered 503 and closed', async (t) => {
  const {proxy, open, answer} = await start(t, {total: 3, perAddress: 9});
  const opened = await open(3);
  const refused = await answer();
  t.is(refused?.status, 503);
  t.is(refused?.headers['retry-after'], '5');
  t.is(refused?.headers['connection'], 'close');
  const {errors} = JSON.parse(String(refused?.body));
  t.deepEqual(errors, [
    {
      code: 'TOOMANYREQUESTS',
      message:
        'this server has 3 connections at the same time, which is the most that limits.connections.total allows: try again in 5 s, or raise the limit',
      detail: {limit: 'limits.connections.total'},
    },
  ]);
  t.regex(String((await openedMetrics(opened)).body), /^backref_connections 3$/m);
  opened[0]?.send(get('/v2/'));
  t.is((await opened[0]?.answer())?.status, 200);
  opened[0]?.socket.destroy();
  await served(answer);
  t.regex(
    String((await proxy.ask('/metrics')).body),
    /^backref_refused_total\{limit="limits\.connections\.total"\} [1-9]/m,
  );
});

test('connections of one address: the one too many is 429', async (t) => {
  const {open, answer} = await start(t, {total: 9, perAddress: 2});
  const opened = await open(2);
  const refused = await answer();
  t.is(refused?.status, 429);
  t.regex(
    String(refused?.body),
    /127\.0\.0\.1 has 2 connections at the same time, .* limits\.connections\.perAddress allows/,
  );
  for (const {socket} of opened) socket.resetAndDestroy();
  await served(answer);
});

test('the connections of a trusted proxy count in total only', async (t) => {
  const {open, answer} = await start(t, {total: 4, perAddress: 1}, {trustedProxies: ['127.0.0.0/8']});
  await open(4);
  t.is((await answer())?.status, 503);
});

test('a refused connection that sends a HEAD gets an answer without a body, and one that pushes gets the answer too', async (t) => {
  const {open, answer} = await start(t, {total: 1, perAddress: 1});
  await open(1);
  const head = await answer('HEAD /v2/ HTTP/1.1\r\nHost: a\r\n\r\n', 'HEAD');
  t.is(head?.status, 503);
  t.is(head?.body.length, 0);
  const body = 'a'.repeat(100_000);
  const push = await answer(
    `PATCH /v2/app/blobs/uploads/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n${body}`,
  );
  t.is(push?.status, 503);
  t.true(push?.isWhole);
});

test('the requests that a refused connection pipelines get one answer', async (t) => {
  const {proxy, open} = await start(t, {total: 1, perAddress: 1});
  await open(1);
  const {send, answer} = await openRaw(t, proxy.port);
  send(get('/v2/').repeat(3));
  t.is((await answer())?.status, 503);
  t.is(await answer(), undefined);
});

test('probes are answered over a connection too many, which ends then', async (t) => {
  const {open, answer} = await start(t, {total: 1, perAddress: 1});
  await open(1);
  for (const path of ['/healthz', '/readyz', '/metrics', '/readyz?verbose']) {
    const probed = await answer(get(path));
    t.is(probed?.status, 200);
    t.is(probed?.headers['connection'], 'close');
  }
  t.is((await answer(get('/healthzz')))?.status, 503);
});

test('a refused connection that sends nothing is closed after 5 s', async (t) => {
  const clock = createMovableClock();
  const waits: (() => void)[] = [];
  const after: Clock['after'] = (ms, call) => {
    if (ms !== 5000) return clock.after(ms, call);
    waits.push(call);
    return () => {};
  };
  const {proxy, open} = await start(t, {total: 1, perAddress: 1}, {clock: {...clock, after}});
  await open(1);
  // What the server looks at every five seconds by itself is not of interest.
  waits.length = 0;
  const refused = once(proxy.server.events, 'limit.exceeded');
  const {socket} = await openRaw(t, proxy.port);
  await refused;
  t.is(waits.length, 1);
  const closed = once(socket.resume(), 'close');
  for (const end of waits) end();
  await closed;
  t.pass();
});

test('500 idle connections of one address stay open, and each is served again', async (t) => {
  const {open, answer} = await start(t, {total: 500, perAddress: 500});
  const opened = await open(500);
  t.is((await answer())?.status, 503);
  for (const {send, answer: next} of opened) {
    send(get('/v2/'));
    t.is((await next())?.status, 200);
  }
});

test('connections that vanish are not counted any more, however they end', async (t) => {
  const {proxy, answer} = await start(t, {total: 10, perAddress: 10});
  const endings = [
    '',
    'GET /v2/ HT',
    get('/v2/'),
    'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n',
    'nonsense\r\n\r\n',
  ];
  for (let round = 0; round < 10; round++) {
    for (const text of endings) {
      const socket = connect(proxy.port, '127.0.0.1').on('error', () => {});
      await once(socket, 'connect');
      if (text !== '') socket.write(text);
      const closed = once(socket, 'close');
      socket.resetAndDestroy();
      await closed;
    }
  }
  const held: RawConnection[] = [];
  while (held.length < 10) {
    const connection = await openRaw(t, proxy.port);
    connection.send(get('/v2/'));
    if ((await connection.answer())?.status === 200) held.push(connection);
  }
  t.is((await answer())?.status, 503);
});

test('a reload changes the limits of connections, and what is open stays counted', async (t) => {
  const {proxy, open, answer} = await start(t, {total: 1, perAddress: 9});
  await open(1);
  t.is((await answer())?.status, 503);
  proxy.reload({config: {limits: {...LIMITS, connections: {total: 2, perAddress: 9}}}});
  await open(1);
  t.is((await answer())?.status, 503);
});

test('one too many over TLS is closed, and the server goes on', async (t) => {
  const config = {limits: {...LIMITS, connections: {total: 1, perAddress: 1}}};
  const {paths: tls} = await writeTls(t);
  const proxy = await startBackref(t, {registries: [{}], config, listener: {tls}});
  const refused: unknown[] = [];
  proxy.server.events.on('limit.exceeded', ({limit}) => void refused.push(limit));
  const faults: unknown[] = [];
  for (const event of ['request.fault', 'server.fault', 'listener.failed'] as const)
    proxy.server.events.on(event, (fault: unknown) => void faults.push(fault));
  /** A connection with which a handshake succeeded; undefined for one that was closed before. */
  const connectSecurely = (): Promise<TLSSocket | undefined> =>
    new Promise((resolve) => {
      const socket = connectTls({host: '127.0.0.1', port: proxy.port, ca: AUTHORITY});
      t.teardown(() => socket.destroy());
      socket.once('secureConnect', () => resolve(socket));
      socket.on('error', () => {});
      socket.once('close', () => resolve(undefined));
    });
  const first = await connectSecurely();
  t.truthy(first);
  for (let count = 0; count < 20; count++) t.is(await connectSecurely(), undefined);
  t.deepEqual(refused, Array(20).fill('limits.connections.total'));
  first?.destroy();
  while (!(await connectSecurely()));
  t.deepEqual(faults, []);
});

test('the listeners of a server share its limits, and an admin listener has none', async (t) => {
  const config = {limits: {...LIMITS, connections: {total: 1, perAddress: 1}}};
  const another = {
    address: {host: '127.0.0.1', port: 0},
    tls: undefined,
    serve: 'main',
    sendTimeout: 60_000,
    trustedProxies: [],
  } as const;
  const otherListeners = [another, {...another, serve: 'admin'} as const];
  const proxy = await startBackref(t, {registries: [{}], config, otherListeners});
  const [first = 0, second = 0, admin = 0] = proxy.server.addresses.map(({port}) => port);
  const statusAt = async (port: number, path: string) => {
    const {send, answer} = await openRaw(t, port);
    send(get(path));
    return (await answer())?.status;
  };
  t.is(await statusAt(first, '/v2/'), 200);
  t.is(await statusAt(second, '/v2/'), 503);
  t.is(await statusAt(admin, '/metrics'), 200);
  t.is(await statusAt(admin, '/metrics'), 200);
});

const NO_WAIT: Clock = {now: () => 0, monotonic: () => 0, after: () => () => {}};

/** A limit of one connection, and what it makes of sockets without another end. */
function limitOfOne(t: ExecutionContext, entrance: {isSecure?: boolean; serves?: 'main' | 'admin'}) {
  const events = createEvents();
  const settings = {...LIMITS, connections: {total: 1, perAddress: 1}};
  const limit = createConnectionLimit({
    entrance: {isSecure: false, serves: 'main', isTrustedProxy: () => false, ...entrance},
    limits: createLimits(settings, {clock: NO_WAIT, events}),
    clock: NO_WAIT,
  });
  let refused = 0;
  events.on('limit.exceeded', () => {
    refused += 1;
  });
  const add = () => {
    const socket = new Socket();
    t.teardown(() => socket.destroy());
    limit.add(socket);
    if (limit.refusalOf(socket)) return 'refused';
    return socket.destroyed ? 'closed' : 'served';
  };
  return {add, refused: () => refused};
}

test('one too many over TLS is closed before its handshake', (t) => {
  const {add, refused} = limitOfOne(t, {isSecure: true});
  t.deepEqual([add(), add()], ['served', 'closed']);
  t.is(refused(), 1);
});

test('the connections of an admin listener are neither counted nor refused', (t) => {
  const {add, refused} = limitOfOne(t, {serves: 'admin'});
  t.deepEqual([add(), add()], ['served', 'served']);
  t.is(refused(), 0);
});

test('a thousand connections are refused at a time, and those beyond are closed without an answer', (t) => {
  const {add, refused} = limitOfOne(t, {});
  t.is(add(), 'served');
  for (let count = 0; count < 1000; count++) t.is(add(), 'refused');
  t.is(add(), 'closed');
  t.is(refused(), 1001);
});
