import {once} from 'node:events';
import {createServer, type Server} from 'node:http';
import {type AddressInfo, connect, createServer as createTcpServer} from 'node:net';
import test, {type ExecutionContext} from 'ava';
import {AUTHORITY, SERVER_TLS} from '../../support/certificates.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {
  BLOB_PATH,
  bytesOf,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  repository,
} from '../../support/upstream.ts';

const HEAD = `HEAD ${MANIFEST_PATH}`;

/** A forward proxy; `seen` lists what it was asked to do. */
async function createProxy(t: ExecutionContext): Promise<{url: string; seen: string[]}> {
  const seen: string[] = [];
  const server: Server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    response.writeHead(200, {'docker-content-digest': digest}).end();
  });
  server.on('connect', (request, client) => {
    seen.push(`CONNECT ${request.url}`);
    const {hostname, port} = new URL(`http://${request.url}`);
    const target = connect(Number(port), hostname, () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      target.pipe(client).pipe(target);
    });
    target.on('error', () => client.destroy());
    client.on('error', () => target.destroy()).on('close', () => target.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return {url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen};
}

test('connections are reused, also after bodies and 404s', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, times: 2},
    {request: `GET ${BLOB_PATH}`, answer: {body: 'abc'}},
    {request: HEAD, answer: {status: 404, body: '{"errors":[]}'}},
    {request: HEAD},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.headManifest(repository, latest, caller);
  await client.headManifest(repository, latest, caller);
  await bytesOf(await client.getBlob(repository, digest, caller));
  await client.headManifest(repository, latest, caller);
  await client.headManifest(repository, latest, caller);
  t.is(upstream.connections(), 1);
});

test('close ends idle connections and lets a running body end', async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', {wait: gate}, 'b']}},
  ]);
  const {client} = createClient(t, upstream.url);
  const blob = await client.getBlob(repository, digest, caller);
  client.close();
  open();
  t.is(String(await bytesOf(blob)), 'ab');
});

test('a certificate of a configured private authority is trusted', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: HEAD}], {tls: SERVER_TLS});
  const {client} = createClient(t, upstream.url, {ca: [AUTHORITY]});
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('an untrusted certificate is "unreachable", at once, and the message says what to do', async (t) => {
  const upstream = await createScriptedUpstream(t, [], {tls: SERVER_TLS});
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.is(failure.kind, 'unreachable');
  t.regex(failure.message, /upstream\.ca/);
});

test('https to a registry that speaks http fails with a message that says so', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const {client} = createClient(t, upstream.url.replace('http:', 'https:'));
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.is(failure.kind, 'unreachable');
  t.regex(failure.message, /insecure: true/);
});

test('a missing TLS handshake is "unreachable" after the connect timeout', async (t) => {
  const server = createTcpServer((socket) => socket.on('error', () => undefined)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  const timeouts = {connect: 20, headers: 5000, idle: 1000};
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const {client} = createClient(t, url, {timeouts});
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.is(failure.kind, 'unreachable');
  t.regex(failure.message, /20ms/);
});

test('plain http must be allowed', (t) => {
  t.throws(() => createClient(t, 'http://127.0.0.1:5000', {insecure: false}), {message: /insecure: true/});
});

test('an invalid HTTP response is a protocol failure', async (t) => {
  const server = createTcpServer((socket) => socket.on('error', () => undefined).end('SSH-2.0-OpenSSH\r\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  const {client} = createClient(t, `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'protocol');
});

test('a write is not repeated after an answer that cannot be understood: it may have been done', async (t) => {
  let connections = 0;
  const server = createTcpServer((socket) => {
    connections += 1;
    socket.on('error', () => undefined).end('SSH-2.0-OpenSSH\r\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  const {client} = createClient(t, `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  t.is((await failureOf(client.beginUpload(repository, {}, caller))).kind, 'protocol');
  t.is(connections, 1);
});

test('HTTP_PROXY is used for plain http', async (t) => {
  const proxy = await createProxy(t);
  const {client} = createClient(t, 'http://registry.invalid', {}, {env: {HTTP_PROXY: proxy.url}});
  t.like(await client.headManifest(repository, latest, caller), {digest});
  t.deepEqual(proxy.seen, [`HEAD http://registry.invalid${MANIFEST_PATH}`]);
});

test('HTTPS_PROXY tunnels https, with the private authority inside, on one reused connection', async (t) => {
  const proxy = await createProxy(t);
  const upstream = await createScriptedUpstream(t, [{request: HEAD, times: 2}], {tls: SERVER_TLS});
  const {client} = createClient(t, upstream.url, {ca: [AUTHORITY]}, {env: {https_proxy: proxy.url}});
  await client.headManifest(repository, latest, caller);
  t.truthy(await client.headManifest(repository, latest, caller));
  t.deepEqual(proxy.seen, [`CONNECT ${upstream.host}`]);
});

test('hosts in NO_PROXY are reached directly', async (t) => {
  const proxy = await createProxy(t);
  const upstream = await createScriptedUpstream(t, [{request: HEAD}]);
  const env = {HTTP_PROXY: proxy.url, NO_PROXY: 'example.org,127.0.0.1'};
  const {client} = createClient(t, upstream.url, {}, {env});
  await client.headManifest(repository, latest, caller);
  t.deepEqual(proxy.seen, []);
});

test('two clients of one upstream share neither tokens nor circuits nor connections', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 500}, times: 4},
    {request: HEAD},
  ]);
  const one = createClient(t, upstream.url, {breaker: {failures: 1, openFor: 1000}});
  const two = createClient(t, upstream.url, {breaker: {failures: 1, openFor: 1000}});
  await failureOf(one.client.headManifest(repository, latest, caller));
  t.is((await failureOf(one.client.headManifest(repository, latest, caller))).kind, 'open');
  t.truthy(await two.client.headManifest(repository, latest, caller));
  t.is(upstream.connections(), 2);
});
