import test from 'ava';
import {createMovableClock, createPassingClock, startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {askRaw, openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';
import {type Lifetime, shareAmongTests} from '../support/shared.ts';
import {errorOf, SPEC_CODES} from './spec-codes.ts';

const {digest} = randomBlob(1);
const hex = digest.slice('sha256:'.length);
const HOST = 'Host: 127.0.0.1\r\n';

/** A server whose upstream expects nothing but `script`. */
async function start(t: Lifetime, script: Expectation[] = [], clock = createMovableClock()) {
  const upstream = await createScriptedUpstream(t, script);
  return startBackref(t, {registries: [upstream], clock});
}

/** One server for all malformed requests: its upstream is never asked for anything. */
const shared = shareAmongTests(test, (lifetime) => start(lifetime));

const names: [what: string, name: string][] = [
  ['an upper-case letter', 'App'],
  ['a separator at the end', 'app-'],
  ['two dots', 'a..b'],
  ['a path upwards', 'a/../b'],
  ['a path upwards at the front', '../app'],
  ['a dot', './app'],
  ['an empty component', 'a//b'],
  ['an encoded path upwards', 'a/%2e%2e/b'],
  ['a path upwards with encoded slashes', 'a%2F..%2Fb'],
  ['a wholly encoded path upwards', '%2e%2e%2f%2e%2e%2fetc%2fpasswd'],
  ['a backslash', 'a%5C..%5Cb'],
  ['a double encoding', 'a%252Fb'],
  ['a lone percent sign', 'a%'],
  ['a percent sign without digits', 'a%zz'],
  ['half an escape', 'a%2'],
  ['a NUL', 'a%00b'],
  ['a line break', 'a%0d%0aX-A:b'],
  ['a space', 'a%20b'],
  ['invalid UTF-8', 'a%ff%fe'],
  ['an overlong encoding of a slash', 'a%c0%afb'],
  ['a letter outside of ASCII', 'caf%c3%a9'],
  ['300 characters', 'a'.repeat(300)],
];

for (const [what, name] of names) {
  test(`a name with ${what} is 400 NAME_INVALID on every endpoint`, async (t) => {
    const proxy = await shared();
    for (const end of ['manifests/latest', `blobs/${digest}`, 'tags/list']) {
      const got = await proxy.ask(`/v2/${name}/${end}`);
      t.is(got.status, 400, end);
      t.is(errorOf(got).code, 'NAME_INVALID', end);
    }
  });
}

test('a name that begins with a host and a port names a registry that is not configured', async (t) => {
  const proxy = await shared();
  for (const end of ['manifests/latest', `blobs/${digest}`, 'tags/list']) {
    const got = await proxy.ask(`/v2/localhost:5000/app/${end}`);
    t.is(got.status, 404, end);
    t.is(errorOf(got).code, 'NAME_UNKNOWN', end);
  }
});

const digests: [what: string, text: string][] = [
  ['one digit too few', `sha256:${hex.slice(1)}`],
  ['one digit too many', `sha256:${hex}0`],
  ['upper-case digits', `sha256:${hex.toUpperCase()}`],
  ['an upper-case algorithm', `SHA256:${hex}`],
  ['an unknown algorithm', `md5:${hex.slice(32)}`],
  ['the name of a property as algorithm', `constructor:${hex}`],
  ['the length of another algorithm', `sha512:${hex}`],
  ['letters that are not digits', `sha256:${'g'.repeat(64)}`],
  ['no algorithm', `:${hex}`],
  ['no digits', 'sha256:'],
  ['a path upwards', `sha256:..%2F${hex.slice(3)}`],
  ['a NUL', `sha256:${hex.slice(3)}%00`],
  ['a percent sign', `sha256:${hex.slice(1)}%`],
  ['a line break at the end', `sha256:${hex}%0a`],
];

for (const [what, text] of digests) {
  test(`a digest with ${what} is 400 DIGEST_INVALID, of a blob and of a manifest`, async (t) => {
    const proxy = await shared();
    for (const path of [`blobs/${text}`, `manifests/${text}`]) {
      for (const method of ['GET', 'HEAD']) {
        const got = await proxy.ask(`/v2/app/${path}`, {method});
        t.is(got.status, 400, path);
        if (method === 'GET') t.is(errorOf(got).code, 'DIGEST_INVALID', path);
      }
    }
  });
}

test('a tag where a digest belongs is 400 DIGEST_INVALID', async (t) => {
  const proxy = await shared();
  t.is(errorOf(await proxy.ask('/v2/app/blobs/latest')).code, 'DIGEST_INVALID');
});

for (const [what, reference] of [
  ['a dot in front', '.hidden'],
  ['a path upwards', '..'],
  ['a hyphen in front', '-x'],
  ['129 characters', 'a'.repeat(129)],
  ['a space', 'a%20b'],
  ['an encoded slash', 'a%2Fb'],
  ['an encoded path upwards', '%2e%2e%2f%2e%2e'],
  ['a double encoding', 'a%252fb'],
  ['a lone percent sign', '%'],
  ['an escape without digits', '%zz'],
  ['a NUL', 'a%00'],
  ['invalid UTF-8', '%ff'],
  ['a letter outside of ASCII', '%c3%a9'],
  ['a line break', 'a%0a'],
] as const) {
  test(`a tag with ${what} is 400 MANIFEST_INVALID`, async (t) => {
    const proxy = await shared();
    const got = await proxy.ask(`/v2/app/manifests/${reference}`);
    t.is(got.status, 400);
    t.is(errorOf(got).code, 'MANIFEST_INVALID');
  });
}

test('a name whose slash is encoded is the same name', async (t) => {
  const image = imageManifest();
  const proxy = await start(t, [{request: 'GET /v2/org/app/manifests/1', answer: manifestAnswer(image)}]);
  t.is((await proxy.ask('/v2/org%2Fapp/manifests/1')).status, 200);
  t.is((await proxy.ask('/v2/org/app/manifests/1')).headers['cache-status'], 'backref;hit;ttl=60');
});

for (const name of ['ns', 'n', 'last']) {
  test(`a query parameter ${name} that is given twice is 400`, async (t) => {
    const proxy = await shared();
    const got = await proxy.ask(`/v2/app/tags/list?${name}=1&${name}=1`);
    t.is(got.status, 400);
    t.regex(errorOf(got).message, new RegExp(`"${name}" is given 2 times`));
  });
}

test('an ns that is an address, a path or not ASCII is NAME_UNKNOWN and is never dialled', async (t) => {
  const elsewhere = await createScriptedUpstream(t);
  const proxy = await shared();
  for (const ns of [
    elsewhere.host,
    elsewhere.url,
    '..',
    '%00',
    'doc%E2%84%AAer.io',
    '%ff',
    '__proto__',
    '',
  ]) {
    const got = await proxy.ask(`/v2/app/manifests/1?ns=${ns}`);
    t.is(got.status, 404, ns);
    t.is(errorOf(got).code, 'NAME_UNKNOWN', ns);
  }
});

test('a target of more than 8,192 characters is 414, one of 8,192 is read', async (t) => {
  const proxy = await shared();
  const fill = (length: number) => `/v2/?${'x'.repeat(length - '/v2/?'.length)}`;
  t.is((await proxy.ask(fill(8192))).status, 200);
  const got = await proxy.ask(fill(8193));
  t.is(got.status, 414);
  t.true(SPEC_CODES.includes(errorOf(got).code));
});

const refused: [what: string, text: string, status: number][] = [
  ['headers of 40 kB', `GET /v2/ HTTP/1.1\r\n${HOST}X: ${'a'.repeat(40_000)}\r\n\r\n`, 431],
  [
    'a thousand headers of 40 bytes',
    `GET /v2/ HTTP/1.1\r\n${HOST}${`X-Header: ${'a'.repeat(28)}\r\n`.repeat(1000)}\r\n`,
    431,
  ],
  ['a request line of 40 kB', `GET /${'a'.repeat(40_000)} HTTP/1.1\r\n${HOST}\r\n`, 431],
  ['garbage', 'one two three\r\n\r\n', 400],
  ['a TLS handshake', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400],
  ['binary zeros', '\0'.repeat(100), 400],
  ['an unknown method', `FETCH /v2/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a method in lower case', `get /v2/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a target with a space', `GET /v2/ app HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a target without a slash', `GET v2/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a target that is an asterisk', `GET * HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['an absolute target without a host', `GET http:// HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['an absolute target of another scheme', `GET ftp://host/v2/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['no Host', 'GET /v2/ HTTP/1.1\r\n\r\n', 400],
  ['two Hosts', `GET /v2/ HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
  ['a header without a colon', `GET /v2/ HTTP/1.1\r\n${HOST}nonsense\r\n\r\n`, 400],
  ['a header with a NUL', `GET /v2/ HTTP/1.1\r\n${HOST}X: \0\r\n\r\n`, 400],
  ['two Content-Lengths', `GET /v2/ HTTP/1.1\r\n${HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`, 400],
  ['a negative Content-Length', `GET /v2/ HTTP/1.1\r\n${HOST}Content-Length: -1\r\n\r\n`, 400],
  [
    'Content-Length together with Transfer-Encoding',
    `GET /v2/ HTTP/1.1\r\n${HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n`,
    400,
  ],
  ['an unknown Transfer-Encoding', `GET /v2/ HTTP/1.1\r\n${HOST}Transfer-Encoding: zip\r\n\r\n`, 400],
  ['CONNECT', `CONNECT example.com:443 HTTP/1.1\r\n${HOST}\r\n`, 405],
];

for (const [what, text, status] of refused) {
  test(`${what} is ${status}, with an error of the specification`, async (t) => {
    const proxy = await shared();
    const got = await askRaw(t, proxy.port, text);
    t.is(got?.status, status);
    if (got) t.true(SPEC_CODES.includes(errorOf(got).code));
    t.is((await proxy.ask('/v2/')).status, 200);
  });
}

test('a 405 below the application has Allow too', async (t) => {
  const proxy = await shared();
  const got = await askRaw(t, proxy.port, `CONNECT example.com:443 HTTP/1.1\r\n${HOST}\r\n`);
  t.is(got?.headers['allow'], 'GET, HEAD');
});

test('a request that ends in the middle of its headers is 400', async (t) => {
  const proxy = await shared();
  const {socket, answer} = await openRaw(t, proxy.port);
  socket.end('GET /v2/ HTTP/1.1\r\nHo');
  const got = await answer();
  t.is(got?.status, 400);
});

test('HTTP/1.0 is answered, with or without a Host, and the connection ends', async (t) => {
  const proxy = await shared();
  for (const text of ['GET /v2/ HTTP/1.0\r\n\r\n', `GET /v2/ HTTP/1.0\r\n${HOST}\r\n`]) {
    const got = await askRaw(t, proxy.port, text);
    t.is(got?.status, 200);
    t.is(got?.headers['connection'], 'close');
    t.is(got?.body.toString(), '{}');
  }
});

for (const target of [
  'http://127.0.0.1/v2/',
  'HTTP://localhost:5000/v2/',
  'https://user:password@host/v2/?a=b',
  'http://[::1]:80/v2/',
  'http://[/v2/',
  'http://a:b/v2/',
  'http://%zz/v2/',
]) {
  test(`the absolute target ${target} is read by its path`, async (t) => {
    const proxy = await shared();
    const got = await askRaw(t, proxy.port, `GET ${target} HTTP/1.1\r\n${HOST}\r\n`);
    t.is(got?.status, 200);
  });
}

test('the host of an absolute target takes precedence over the Host header', async (t) => {
  const docker = await createScriptedUpstream(t);
  const ghcr = await createScriptedUpstream(t, [{request: 'GET /v2/a/manifests/1', answer: {status: 404}}]);
  const proxy = await startBackref(t, {registries: [docker, {url: ghcr.url, name: 'ghcr.io'}]});
  const got = await askRaw(t, proxy.port, `GET http://ghcr.io/v2/a/manifests/1 HTTP/1.1\r\n${HOST}\r\n`);
  t.is(got?.status, 404);
});

test('an absolute target without a path, or with only a query, is not an endpoint', async (t) => {
  const proxy = await shared();
  for (const target of ['http://host', 'http://host?/v2/', 'http://host/../v2/']) {
    const got = await askRaw(t, proxy.port, `GET ${target} HTTP/1.1\r\n${HOST}\r\n`);
    t.is(got?.status, 404, target);
    if (got) t.is(errorOf(got).code, 'UNSUPPORTED');
  }
});

test('pipelined requests are answered in their order, errors among them', async (t) => {
  const proxy = await start(t, [{request: 'GET /v2/library/slow/manifests/1', answer: {status: 404}}]);
  const {send, answer} = await openRaw(t, proxy.port);
  const line = (method: string, path: string) => `${method} ${path} HTTP/1.1\r\n${HOST}\r\n`;
  send(
    line('GET', '/v2/slow/manifests/1') +
      line('HEAD', '/v2/App/manifests/1') +
      line('GET', '/v2/') +
      line('PUT', '/v2/app/manifests/1') +
      line('GET', '/v2/_catalog'),
  );
  const statuses: unknown[] = [];
  for (const method of ['GET', 'HEAD', 'GET', 'PUT', 'GET']) statuses.push((await answer(method))?.status);
  t.deepEqual(statuses, [404, 400, 200, 405, 200]);
});

test('garbage after a request is answered after it', async (t) => {
  const proxy = await shared();
  const {send, answer} = await openRaw(t, proxy.port);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}\r\n`);
  t.is((await answer())?.status, 200);
  send('garbage\r\n\r\n');
  t.is((await answer())?.status, 400);
});

test('garbage after a request whose body is still arriving never becomes part of that body', async (t) => {
  const blob = randomBlob(1000);
  const wait = Promise.withResolvers<void>();
  t.teardown(wait.resolve);
  const request = `GET /v2/library/app/blobs/${blob.digest}`;
  const body = [blob.bytes.subarray(0, 500), {wait: wait.promise}];
  const answer = {headers: {'Content-Length': '1000'}, body};
  const proxy = await start(t, [{request, answer}], createPassingClock());
  const {socket, send} = await openRaw(t, proxy.port);
  send(`GET /v2/app/blobs/${blob.digest} HTTP/1.1\r\n${HOST}\r\n`);
  let received = Buffer.alloc(0);
  for await (const chunk of socket.iterator({destroyOnReturn: false})) {
    received = Buffer.concat([received, chunk]);
    if (received.includes(blob.bytes.subarray(0, 500))) break;
  }
  send('garbage\r\n\r\n');
  const rest = await socket.toArray().catch(() => []);
  t.is(Buffer.concat(rest).length, 0);
});

test('the body of a GET is skipped, and the next request is read', async (t) => {
  const proxy = await shared();
  const {send, answer} = await openRaw(t, proxy.port);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`);
  t.is((await answer())?.status, 200);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`);
  t.is((await answer())?.status, 200);
  send(`GET /v2/App/tags/list HTTP/1.1\r\n${HOST}Content-Length: 100000\r\n\r\n${'x'.repeat(100_000)}`);
  t.is((await answer())?.status, 400);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}\r\n`);
  t.is((await answer())?.status, 200);
});

test('a pushed body is not waited for: the 405 comes first', async (t) => {
  const proxy = await shared();
  const {send, answer} = await openRaw(t, proxy.port);
  send(`PUT /v2/app/manifests/1 HTTP/1.1\r\n${HOST}Content-Length: 1000000000\r\n\r\nthe first bytes`);
  t.is((await answer('PUT'))?.status, 405);
});

for (const expectation of ['100-continue', '200-ok', '']) {
  test(`Expect: ${expectation} is ignored`, async (t) => {
    const proxy = await shared();
    const got = await askRaw(t, proxy.port, `GET /v2/ HTTP/1.1\r\n${HOST}Expect: ${expectation}\r\n\r\n`);
    t.is(got?.status, 200);
    t.is(got?.body.toString(), '{}');
  });
}

test('Upgrade is ignored', async (t) => {
  const proxy = await shared();
  const upgrade = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAA\r\n';
  const got = await askRaw(t, proxy.port, `GET /v2/ HTTP/1.1\r\n${HOST}${upgrade}\r\n`);
  t.is(got?.status, 200);
});

test('odd conditional, range and cache headers never fail a request', async (t) => {
  const image = imageManifest();
  const proxy = await start(t, [
    {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(image), always: true},
    {request: 'HEAD /v2/library/app/manifests/1', answer: {status: 500}, always: true, optional: true},
  ]);
  for (const headers of [
    {'If-None-Match': '"'},
    {'If-None-Match': ',,,W/'},
    {'If-Range': '\\'},
    {Range: 'bytes=\\'},
    {'Cache-Control': ',=,;max-age='},
    {Via: ',,, ,'},
    {Via: 'x'.repeat(5000)},
    {Pragma: '\\"'},
    {Accept: '\u00ff\u00fe'},
  ]) {
    const got = await proxy.ask('/v2/app/manifests/1', {headers});
    t.is(got.status, 200, JSON.stringify(headers));
  }
});

test('what follows a request with Connection: close is not read, and does not affect its answer', async (t) => {
  const proxy = await startBackref(t, {registries: [{url: 'http://127.0.0.1:1'}]});
  const last = 'GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
  const connection = await openRaw(t, proxy.port);
  connection.send(`${last}GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n`);
  const answer = await connection.answer();
  t.is(answer?.status, 200);
  t.is(answer?.body.toString(), '{}');
  t.is(await connection.answer(), undefined);
});
