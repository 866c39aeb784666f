import {METHODS} from 'node:http';
import test from 'ava';
import {startBackref} from '../support/backref.ts';
import {randomBlob} from '../support/content.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {shareAmongTests} from '../support/shared.ts';
import {errorOf} from './spec-codes.ts';

const {digest} = randomBlob(1);

/** One server with two registries, neither of which it may ask. */
const shared = shareAmongTests(test, async (lifetime) => {
  const upstream = await createScriptedUpstream(lifetime);
  const other = await createScriptedUpstream(lifetime);
  const proxy = await startBackref(lifetime, {registries: [upstream, {url: other.url, name: 'ghcr.io'}]});
  return {proxy, upstream};
});

for (const path of ['/v2/', '/v2', '/v2/?ns=ghcr.io', '/v2/?anything=%zz']) {
  test(`GET ${path} says that the API is here`, async (t) => {
    const {proxy} = await shared();
    const got = await proxy.ask(path);
    t.is(got.status, 200);
    t.is(got.body.toString(), '{}');
    t.is(got.headers['content-type'], 'application/json');
    t.is(got.headers['docker-distribution-api-version'], 'registry/2.0');
    t.regex(String(got.headers['x-request-id']), /^[0-9a-f]{32}$/);
    const head = await proxy.ask(path, {method: 'HEAD'});
    t.is(head.status, 200);
    t.is(head.headers['content-length'], '2');
    t.is(head.body.length, 0);
  });
}

test('the Authorization header of a client is ignored', async (t) => {
  const {proxy} = await shared();
  for (const authorization of ['Basic !!', 'Bearer x', 'Nonsense', '']) {
    t.is((await proxy.ask('/v2/', {headers: {authorization}})).status, 200);
  }
});

const SESSION = '/v2/app/blobs/uploads/4f0a';
const endpoints: [path: string, allow: string, push: readonly string[]][] = [
  ['/v2/', 'GET, HEAD', []],
  ['/v2', 'GET, HEAD', []],
  ['/v2/_catalog', 'GET, HEAD', []],
  ['/v2/app/tags/list', 'GET, HEAD', []],
  ['/v2/app/manifests/latest', 'GET, HEAD', ['PUT', 'DELETE']],
  [`/v2/app/manifests/${digest}`, 'GET, HEAD', ['PUT', 'DELETE']],
  [`/v2/app/blobs/${digest}`, 'GET, HEAD', ['DELETE']],
  ['/v2/app/blobs/uploads', '', ['POST']],
  ['/v2/app/blobs/uploads/', '', ['POST']],
  [SESSION, '', ['GET', 'PATCH', 'PUT', 'DELETE']],
];

for (const [path, allow, push] of endpoints) {
  const others = METHODS.filter((method) => method !== 'CONNECT' && !allow.split(', ').includes(method));
  const title = path.replace(digest, '<digest>');

  test(`${title} answers every other method with 405 and Allow "${allow}"`, async (t) => {
    const {proxy} = await shared();
    for (const method of others) {
      const got = await proxy.ask(path, {method});
      t.is(got.status, 405, method);
      t.is(got.headers.allow, allow, method);
      if (method === 'HEAD') continue;
      const {code, message} = errorOf(got);
      t.is(code, 'UNSUPPORTED', method);
      if (push.includes(method)) t.regex(message, /registries\.docker\.io\.push is "deny"/, method);
      else t.true(message.startsWith(`${method} is not supported here`), message);
    }
  });
}

test('a refused push names the registry, its setting and where to push instead', async (t) => {
  const {proxy, upstream} = await shared();
  const got = await proxy.ask('/v2/app/manifests/latest', {method: 'PUT'});
  t.is(
    errorOf(got).message,
    `registry docker.io is a mirror and takes no pushes: registries.docker.io.push is "deny"; push to ${upstream.host} itself, or set it to "through", which writes to ${upstream.host}, or to "local", which keeps what is pushed here`,
  );
});

test('a push is refused by the registry that it is routed to', async (t) => {
  const {proxy} = await shared();
  for (const path of ['/v2/ghcr.io/app/blobs/uploads/', '/v2/app/blobs/uploads/?ns=ghcr.io']) {
    t.regex(errorOf(await proxy.ask(path, {method: 'POST'})).message, /registries\.ghcr\.io\.push is "deny"/);
  }
});

test('a mount and a push in one POST are refused the same way', async (t) => {
  const {proxy} = await shared();
  for (const query of [`mount=${digest}&from=other`, `digest=${digest}`]) {
    t.is((await proxy.ask(`/v2/app/blobs/uploads/?${query}`, {method: 'POST'})).status, 405);
  }
});

for (const path of [
  '/',
  '/v1/',
  '/v2x',
  '/V2/',
  '//',
  '//v2/',
  '/v2//',
  '/v2/app',
  '/v2/app/',
  '/v2/app/tags',
  '/v2/app/tags/list/',
  '/v2/app/tags/List',
  '/v2/app/manifests',
  '/v2/app/manifests/',
  '/v2/app/manifests/a/b',
  '/v2/app/blobs/',
  '/v2//manifests/latest',
  '/v2/manifests/latest',
  '/v2/_catalog/',
  `/v2/app/blobs/${digest}/`,
  '/favicon.ico',
  '/%2e%2e/%2e%2e/etc/passwd',
  '/../../etc/passwd',
]) {
  test(`${path.replace(digest, '<digest>')} is not an endpoint: 404 UNSUPPORTED`, async (t) => {
    const {proxy} = await shared();
    const got = await proxy.ask(path);
    t.is(got.status, 404);
    const {code, message} = errorOf(got);
    t.is(code, 'UNSUPPORTED');
    t.regex(message, /is not an endpoint; .* \/v2\//);
  });
}

test('words of the API may be part of a name', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/blobs/manifests/tags/manifests/list', answer: {status: 404}},
    {request: 'GET /v2/tags/list/tags/list?n=1000', answer: {status: 404}},
    {request: `HEAD /v2/a/blobs/uploads/blobs/${digest}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is(errorOf(await proxy.ask('/v2/blobs/manifests/tags/manifests/list')).code, 'MANIFEST_UNKNOWN');
  t.is(errorOf(await proxy.ask('/v2/tags/list/tags/list')).code, 'NAME_UNKNOWN');
  t.is((await proxy.ask(`/v2/a/blobs/uploads/blobs/${digest}`, {method: 'HEAD'})).status, 404);
});

test('OCI-Namespace repeats ns where ns chose the registry, in errors too', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const other = await createScriptedUpstream(t, [
    {request: 'GET /v2/app/manifests/latest', answer: {status: 404}},
    {request: 'GET /v2/app/tags/list?n=1000', answer: {body: '{"tags":["a"]}'}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream, {url: other.url, name: 'ghcr.io'}]});
  const absent = await proxy.ask('/v2/app/manifests/latest?ns=ghcr.io');
  t.is(absent.status, 404);
  t.is(absent.headers['oci-namespace'], 'ghcr.io');
  t.is((await proxy.ask('/v2/app/tags/list?ns=ghcr.io')).headers['oci-namespace'], 'ghcr.io');
  t.is((await proxy.ask('/v2/_catalog')).headers['oci-namespace'], undefined);
  t.is((await proxy.ask('/v2/ghcr.io/app/tags/list')).headers['oci-namespace'], undefined);
});

test('an unknown ns is 404 NAME_UNKNOWN, which lists the registries, and no header repeats it', async (t) => {
  const {proxy} = await shared();
  for (const path of ['manifests/latest', `blobs/${digest}`, 'tags/list']) {
    const got = await proxy.ask(`/v2/app/${path}?ns=127.0.0.1:${proxy.port}`);
    t.is(got.status, 404);
    t.is(got.headers['oci-namespace'], undefined);
    const {code, message} = errorOf(got);
    t.is(code, 'NAME_UNKNOWN');
    t.regex(message, /configured are: docker\.io, ghcr\.io/);
  }
});
