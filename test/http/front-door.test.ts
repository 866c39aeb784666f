import {once} from 'node:events';
import {stat} from 'node:fs';
import {type AddressInfo, createServer} from 'node:net';
import test, {type ExecutionContext} from 'ava';
import {createFrontDoor} from '../../src/http/front-door.ts';
import type {Peer} from '../../src/http/prepared-sender.ts';
import {createMovableClock, startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer} from '../support/content.ts';
import {askRaw, openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const image = imageManifest();
const PATH = `/v2/app/manifests/${image.digest}`;
const HOST = 'Host: a';
const KNOWN = `GET ${PATH} HTTP/1.1\r\n${HOST}\r\n\r\n`;

/** A server that has a prepared answer to `KNOWN`. */
async function start(t: ExecutionContext) {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${image.digest}`, answer: manifestAnswer(image)},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  for (let time = 0; time < 2; time += 1) await askRaw(t, proxy.port, KNOWN);
  return proxy;
}

test('requests one after the other on one connection', async (t) => {
  const {port} = await start(t);
  const {send, answer} = await openRaw(t, port);
  for (let time = 0; time < 3; time += 1) {
    send(KNOWN);
    t.deepEqual((await answer())?.body, image.bytes);
  }
});

test('requests that come together are answered in their order', async (t) => {
  const {port} = await start(t);
  const {send, answer} = await openRaw(t, port);
  send(KNOWN + KNOWN.replace(PATH, '/v2/') + KNOWN);
  t.deepEqual((await answer())?.body, image.bytes);
  t.is((await answer())?.body.toString(), '{}');
  t.deepEqual((await answer())?.body, image.bytes);
});

test('a request that comes in pieces, and those that follow it, are answered', async (t) => {
  const {port} = await start(t);
  const {send, answer} = await openRaw(t, port);
  send(KNOWN);
  t.is((await answer())?.status, 200);
  for (const piece of [KNOWN.slice(0, 10), KNOWN.slice(10, 40), KNOWN.slice(40)]) {
    send(piece);
    await new Promise(setImmediate);
  }
  t.deepEqual((await answer())?.body, image.bytes);
  send(KNOWN);
  t.deepEqual((await answer())?.body, image.bytes);
});

test('a client that ends its side after its request is answered, and the connection ends', async (t) => {
  const {port} = await start(t);
  const {socket, answer} = await openRaw(t, port);
  socket.end(KNOWN);
  t.deepEqual((await answer())?.body, image.bytes);
  t.is(await answer(), undefined);
});

test('clients that arrive together, and end their sides after their requests, are answered', async (t) => {
  const {port} = await start(t);
  const connections = await Promise.all(Array.from({length: 50}, () => openRaw(t, port)));
  const statuses = await Promise.all(
    connections.map(async ({socket, answer}) => {
      socket.end(KNOWN.replace(PATH, '/healthz'));
      return (await answer())?.status;
    }),
  );
  t.deepEqual([...new Set(statuses)], [200]);
});

test('an answer whose client had gone before it was written is reported as aborted', async (t) => {
  const {port, server} = await start(t);
  const {socket} = await openRaw(t, port);
  const ended = once(server.events, 'request.end');
  socket.write(KNOWN);
  socket.resetAndDestroy();
  const [{outcome, url}] = await ended;
  t.is(url, PATH);
  t.is(outcome, 'aborted');
});

test('a server that closes ends the connections that wait for a request', async (t) => {
  const {port, server} = await start(t);
  const [used, unused] = [await openRaw(t, port), await openRaw(t, port)];
  used.send(KNOWN);
  t.is((await used.answer())?.status, 200);
  await server.close();
  t.is(await used.answer(), undefined);
  t.is(await unused.answer(), undefined);
});

test('a connection whose answer is given as the time of its request ends stays open', async (t) => {
  const answering = Promise.withResolvers<boolean>();
  const answer = ({socket}: Peer, body: string): true => {
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    return true;
  };
  let requests = 0;
  const door = createFrontDoor({
    clock: createMovableClock(),
    firstRequestTimeout: 50,
    pass: () => t.fail(),
    refuseLate: () => t.fail(),
    connection: (peer) => () => {
      requests += 1;
      if (requests > 1) return answer(peer, 'second');
      // In the turn in which the time is over: what a file gives is there when connections are read.
      peer.socket.prependOnceListener('timeout', () => {
        stat('.', () => answering.resolve(answer(peer, 'first')));
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      });
      return answering.promise;
    },
  });
  const server = createServer({allowHalfOpen: true, pauseOnConnect: true}, (socket) => door.add(socket));
  t.teardown(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const client = await openRaw(t, (server.address() as AddressInfo).port);
  for (const body of ['first', 'second']) {
    client.send(KNOWN);
    t.is((await client.answer())?.body.toString(), body);
  }
});

const ODD: [title: string, text: string, status: number][] = [
  ['lines that end without a carriage return', `GET ${PATH} HTTP/1.1\n${HOST}\n\n`, 400],
  ['a line that continues another', `GET ${PATH} HTTP/1.1\r\n${HOST}\r\nAccept: a\r\n b\r\n\r\n`, 400],
  ['a space before the colon', `GET ${PATH} HTTP/1.1\r\nHost : a\r\n\r\n`, 400],
  ['two hosts', `GET ${PATH} HTTP/1.1\r\n${HOST}\r\n${HOST}\r\n\r\n`, 400],
  ['no host', `GET ${PATH} HTTP/1.1\r\nAccept: a\r\n\r\n`, 400],
  ['a byte of zero', `GET ${PATH} HTTP/1.1\r\n${HOST}\r\nAccept: \0\r\n\r\n`, 400],
  ['a version that does not exist', `GET ${PATH} HTTP/1.7\r\n${HOST}\r\n\r\n`, 400],
  ['a method in lower case', `get ${PATH} HTTP/1.1\r\n${HOST}\r\n\r\n`, 400],
  ['an older version', `GET ${PATH} HTTP/1.0\r\n${HOST}\r\n\r\n`, 200],
  ['the whole URL as the target', `GET http://a${PATH} HTTP/1.1\r\n${HOST}\r\n\r\n`, 200],
  ['an expectation', `GET ${PATH} HTTP/1.1\r\n${HOST}\r\nExpect: 100-continue\r\n\r\n`, 200],
  ['a body', `GET ${PATH} HTTP/1.1\r\n${HOST}\r\nContent-Length: 2\r\n\r\n{}`, 200],
];
for (const [title, text, status] of ODD) {
  test(`${title}: node's HTTP server reads it, also after a request that it did not see`, async (t) => {
    const {port} = await start(t);
    const {send, answer} = await openRaw(t, port);
    send(KNOWN);
    t.is((await answer())?.status, 200);
    send(text);
    t.is((await answer())?.status, status);
  });
}
