import {once} from 'node:events';
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import {createServer as createTlsServer} from 'node:https';
import type {AddressInfo, Socket} from 'node:net';
import test, {type ExecutionContext} from 'ava';
import {OciError} from '../../../src/oci/errors.ts';
import {UpstreamRefusal} from '../../../src/upstream/port.ts';
import {AUTHORITY, SERVER_TLS} from '../../support/certificates.ts';
import {createManualClock} from '../../support/clock.ts';
import {BREAK, createScriptedUpstream, HANG} from '../../support/scripted-upstream.ts';
import {
  at,
  BLOB_PATH,
  bytesOf,
  caller,
  createClient,
  digest,
  failureOf,
  repository,
} from '../../support/upstream.ts';

const UPLOADS = '/v2/team/app/blobs/uploads/';
const PATCH = `PATCH ${UPLOADS}7`;
const accepted = {status: 202, headers: {location: `${UPLOADS}7`, range: '0-1'}};
/** Sent once while nothing is known about the upstream. */
const ping = {request: 'GET /v2/'};
const PIECE = Buffer.alloc(64 * 1024, 'x');

/** Bytes that a test supplies one by one, and whose end it observes. */
function createSource() {
  const queue: (Uint8Array | Error | undefined)[] = [];
  const {promise: ended, resolve: end} = Promise.withResolvers<void>();
  let asked = 0;
  let wake = (): void => undefined;
  async function* read(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        asked++;
        while (queue.length === 0) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        const next = queue.shift();
        if (next === undefined) return;
        if (next instanceof Error) throw next;
        yield next;
      }
    } finally {
      end();
    }
  }
  const put = (...items: (Uint8Array | Error | undefined)[]) => {
    queue.push(...items);
    wake();
  };
  return {
    bytes: read(),
    put,
    ended,
    finish: () => put(undefined),
    /** Resolves when this many chunks have been requested. */
    async asked(count = 1) {
      while (asked < count) await new Promise(setImmediate);
    },
  };
}

/** Endless bytes; `taken` counts them. */
function createEndless() {
  const {promise: ended, resolve: end} = Promise.withResolvers<void>();
  let taken = 0;
  async function* read(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        taken += PIECE.length;
        yield PIECE;
      }
    } finally {
      end();
    }
  }
  return {bytes: read(), ended, taken: () => taken};
}

/** An upstream that answers an upload without reading it, and any other request with 200. */
async function startEarlyAnswers(
  t: ExecutionContext,
  onUpload: (request: IncomingMessage, response: ServerResponse) => void,
  tls?: {key: string; cert: string},
): Promise<{url: string; sockets: Set<Socket>}> {
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.method === 'PATCH') onUpload(request, response);
    else response.end();
  };
  const server = tls ? createTlsServer(tls, listener) : createServer(listener);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return {url: `${tls ? 'https' : 'http'}://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets};
}

const chunkOf = (bytes: AsyncIterable<Uint8Array>, length?: number) => ({length, range: undefined, bytes});

/** Long enough for every limit of a request. */
const LONG = 600_000;

test('a client may take its time: no limit applies while its bytes are awaited', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [ping, {request: PATCH, answer: accepted}]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const source = createSource();
  const sent = client.appendUpload(
    repository,
    at(`${upstream.url}${UPLOADS}7`),
    chunkOf(source.bytes, 2),
    caller,
  );
  await source.asked();
  await clock.advance(LONG);
  source.put(Buffer.from('a'));
  await source.asked(2);
  await clock.advance(LONG);
  source.put(Buffer.from('b'));
  await source.asked(3);
  await clock.advance(LONG);
  source.finish();
  t.like(await sent, {offset: 2});
  t.is(String(upstream.requests[1]?.body), 'ab');
});

test('an upstream that accepts no bytes times out, and no more of them are read', async (t) => {
  const clock = createManualClock();
  const {promise: begun, resolve: begin} = Promise.withResolvers<IncomingMessage>();
  const {url, sockets} = await startEarlyAnswers(t, begin);
  const {client} = createClient(t, url, {}, {clock});
  const source = createEndless();
  const failure = failureOf(
    client.appendUpload(repository, at(`${url}${UPLOADS}7`), chunkOf(source.bytes), caller),
  );
  const request = await begun;
  // Until the buffers in between are full.
  for (let before = -1; before < source.taken(); ) {
    before = source.taken();
    for (let turn = 0; turn < 50; turn++) await clock.advance(0);
  }
  await clock.advance(30_000);
  await clock.advance(30_000);
  t.like(await failure, {
    kind: 'timeout',
    message: `${new URL(url).host}: accepted no byte of the upload for 30000 ms`,
  });
  await source.ended;
  request.on('error', () => undefined).resume();
  while (sockets.size > 1) await clock.advance(0);
});

test("the time limit for the response's headers starts with the last byte, and includes the idle time for storing", async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [ping, {request: PATCH, answer: {before: HANG}}]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const source = createSource();
  const failure = failureOf(
    client.appendUpload(repository, at(`${upstream.url}${UPLOADS}7`), chunkOf(source.bytes), caller),
  );
  await source.asked();
  source.finish();
  await upstream.received(2);
  await clock.advance(34_999);
  await clock.advance(1);
  t.like(await failure, {
    kind: 'timeout',
    message: `${upstream.host}: sent no response headers for 35000 ms after the last byte of the upload`,
  });
});

for (const [scheme, tls] of [
  ['http', undefined],
  ['https', SERVER_TLS],
] as const) {
  test(`a refusal that comes before the bytes are read is received, and ends reading and connection (${scheme})`, async (t) => {
    const answer = (request: IncomingMessage, response: ServerResponse): void => {
      const body = JSON.stringify({errors: [{code: 'SIZE_INVALID', message: 'too large'}]});
      const headers = {'content-type': 'application/json', connection: 'close'};
      response.writeHead(413, headers).end(body, () => request.socket.destroy());
    };
    const {url, sockets} = await startEarlyAnswers(t, answer, tls);
    const {client} = createClient(t, url, {ca: [AUTHORITY]});
    for (let round = 0; round < 20; round++) {
      const source = createEndless();
      const sent = client.appendUpload(repository, at(`${url}${UPLOADS}7`), chunkOf(source.bytes), caller);
      const refusal = await failureOf(sent);
      t.true(refusal instanceof UpstreamRefusal, refusal.message);
      t.like(refusal, {status: 413, code: 'SIZE_INVALID'});
      t.regex(refusal.message, /too large/);
      await source.ended;
    }
    while (sockets.size > 1) await new Promise(setImmediate);
  });
}

test('a stalled client does not delay a refusal', async (t) => {
  const {url} = await startEarlyAnswers(t, (_, response) => response.writeHead(404).end());
  const {client} = createClient(t, url);
  const source = createSource();
  source.put(Buffer.from('a'));
  const sent = client.appendUpload(repository, at(`${url}${UPLOADS}7`), chunkOf(source.bytes, 100), caller);
  t.like(await failureOf(sent), {status: 404});
  source.put(Buffer.from('b'));
  await source.ended;
});

test('an upstream that accepts before it has read the bytes still gets all of them', async (t) => {
  const received: Buffer[] = [];
  const {promise: whole, resolve} = Promise.withResolvers<void>();
  const {url} = await startEarlyAnswers(t, (request, response) => {
    response.writeHead(202, {location: '/next', range: '0-1'}).flushHeaders();
    request.on('data', (chunk) => received.push(chunk));
    request.on('end', () => {
      response.end();
      resolve();
    });
  });
  const {client} = createClient(t, url);
  const source = createSource();
  const sent = client.appendUpload(repository, at(`${url}${UPLOADS}7`), chunkOf(source.bytes, 2), caller);
  source.put(Buffer.from('a'));
  await source.asked();
  source.put(Buffer.from('b'));
  source.finish();
  t.like(await sent, {offset: 2});
  await whole;
  t.is(String(Buffer.concat(received)), 'ab');
});

test('a connection that breaks midway is "unreachable", without a retry, and ends the reading', async (t) => {
  let uploads = 0;
  const {url} = await startEarlyAnswers(t, (request) => {
    uploads++;
    request.once('data', () => request.socket.resetAndDestroy());
  });
  const {client} = createClient(t, url);
  const source = createEndless();
  const sent = client.appendUpload(repository, at(`${url}${UPLOADS}7`), chunkOf(source.bytes), caller);
  t.is((await failureOf(sent)).kind, 'unreachable');
  await source.ended;
  t.is(uploads, 1);
});

test("a client's own fault is passed on unchanged, aborts the upload and frees its slot", async (t) => {
  const aborted: Promise<unknown>[] = [];
  const {url} = await startEarlyAnswers(t, (request) => {
    request.on('error', () => undefined);
    aborted.push(new Promise((resolve) => void request.on('close', resolve)));
  });
  const {client, heard} = createClient(t, url, {
    concurrency: {heads: 1, manifests: 1, bodies: 1},
    breaker: {failures: 1, openFor: 1},
  });
  for (let round = 0; round < 3; round++) {
    const source = createSource();
    const fault = new OciError('SIZE_INVALID');
    source.put(Buffer.from('a'), fault);
    const sent = client.appendUpload(repository, at(`${url}${UPLOADS}7`), chunkOf(source.bytes, 100), caller);
    t.is(await t.throwsAsync(sent), fault);
  }
  await Promise.all(aborted);
  t.false(heard.some(({name}) => name === 'upstream.circuit' || name === 'upstream.failed'));
});

test('a body that does not have the announced length is never sent as complete', async (t) => {
  const {url} = await startEarlyAnswers(t, () => undefined);
  const {client} = createClient(t, url);
  for (const length of [1, 3]) {
    const source = createSource();
    source.put(Buffer.from('ab'), undefined);
    const sent = client.appendUpload(
      repository,
      at(`${url}${UPLOADS}7`),
      chunkOf(source.bytes, length),
      caller,
    );
    await t.throwsAsync(sent, {
      message: `the stream of an upload does not have the ${length} bytes that were announced`,
    });
    await source.ended;
  }
});

test("uploads and downloads do not use each other's slots", async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(
    t,
    [
      ping,
      {request: `GET ${BLOB_PATH}`, answer: {body: ['a', {wait: gate}, 'b']}},
      {request: PATCH, answer: accepted, times: 2},
    ],
    {anyOrder: true},
  );
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 1, bodies: 1}});
  const append = (bytes: AsyncIterable<Uint8Array>) =>
    client.appendUpload(repository, at(`${upstream.url}${UPLOADS}7`), chunkOf(bytes), caller);
  const source = createSource();
  const first = append(source.bytes);
  await source.asked();
  const download = await client.getBlob(repository, digest, caller);
  const waiting = createSource();
  waiting.finish();
  const second = append(waiting.bytes);
  source.finish();
  await Promise.all([first, second]);
  open();
  t.is(String(await bytesOf(download)), 'ab');
});

test('an upload waits longer for a slot than other requests', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    ping,
    {request: PATCH, answer: accepted, optional: true},
  ]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 1, bodies: 1}}, {clock});
  const append = (bytes: AsyncIterable<Uint8Array>) =>
    client.appendUpload(repository, at(`${upstream.url}${UPLOADS}7`), chunkOf(bytes), caller);
  const source = createSource();
  const first = append(source.bytes);
  await source.asked();
  const failure = failureOf(append(createSource().bytes));
  await clock.sleeping(2); // The first one's idle limit, and the second one's wait.
  await clock.advance(34_999);
  await clock.advance(1);
  t.regex((await failure).message, /upstream\.concurrency\.bodies/);
  source.finish();
  await first;
});

test('an upload is never the probe of a half-open circuit', async (t) => {
  const clock = createManualClock();
  const location = `${UPLOADS}7`;
  const upstream = await createScriptedUpstream(t, [
    ping,
    {request: PATCH, answer: {before: BREAK}},
    // The host is really down: the circuit opens.
    {...ping, answer: {before: BREAK}},
    ping,
    {request: PATCH, answer: accepted},
  ]);
  const {client, heard} = createClient(t, upstream.url, {breaker: {failures: 1, openFor: 1000}}, {clock});
  const append = (source: {bytes: AsyncIterable<Uint8Array>}) =>
    client.appendUpload(repository, at(`${upstream.url}${location}`), chunkOf(source.bytes), caller);
  const empty = () => {
    const source = createSource();
    source.finish();
    return source;
  };
  t.is((await failureOf(append(empty()))).kind, 'unreachable');
  t.is((await failureOf(append(empty()))).kind, 'open');
  await clock.advance(1000);
  const slow = createSource();
  const sent = append(slow);
  await slow.asked();
  const states = heard.flatMap((one) => (one.name === 'upstream.circuit' ? [one.event.state] : []));
  t.deepEqual(states, ['open', 'half-open', 'closed']);
  slow.finish();
  await sent;
});

test('an upload to another host is never the probe of a half-open circuit', async (t) => {
  const clock = createManualClock(undefined, {skipBelow: 1000});
  const storage = await createScriptedUpstream(t, [{request: 'PATCH /signed', answer: accepted}]);
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}`, answer: {before: BREAK}, times: 4},
    {...ping, answer: {before: BREAK}},
    ping,
  ]);
  const breaker = {failures: 1, openFor: 60_000};
  const {client, heard} = createClient(t, upstream.url, {breaker}, {clock});
  t.is((await failureOf(client.beginUpload(repository, {}, caller))).kind, 'unreachable');
  t.is((await failureOf(client.beginUpload(repository, {}, caller))).kind, 'open');
  await clock.advance(60_000);
  const slow = createSource();
  const sent = client.appendUpload(repository, at(`${storage.url}/signed`), chunkOf(slow.bytes), caller);
  await slow.asked();
  const states = heard.flatMap((one) => (one.name === 'upstream.circuit' ? [one.event.state] : []));
  t.deepEqual(states, ['open', 'half-open', 'closed']);
  slow.finish();
  await sent;
});
