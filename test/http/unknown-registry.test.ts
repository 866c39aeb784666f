import test, {type ExecutionContext} from 'ava';
import type {Identity} from '../../src/identity/authenticator.ts';
import type {AccessSettings} from '../../src/registry/access-policy.ts';
import {type Content, randomBlob} from '../support/content.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {type RuledAnswer, type RuledServer, type Sender, startRuledServer} from './ruled-server.ts';
import {errorOf} from './spec-codes.ts';

const ROOT: Identity = {names: ['user:root']};
/** May pull from one registry, and is told only of that one. */
const READER: Identity = {names: ['user:reader']};
/** May push wherever she may not pull. */
const WRITER: Identity = {names: ['user:writer']};
const STRANGER: Identity = {names: ['user:stranger']};

const RULES: AccessSettings['rules'] = [
  {who: ['user:root'], where: ['**'], may: ['pull', 'push', 'delete']},
  {who: ['user:reader'], where: ['apps.local/**', 'nowhere.example/**'], may: ['pull']},
  {who: ['user:writer'], where: ['ghcr.io/**'], may: ['push']},
];

const {digest}: Content = randomBlob(10);

/** `docker.io`, whose names never begin with a host, and `ghcr.io` are mirrors; `apps.local` takes pushes. */
async function start(t: ExecutionContext, access: Partial<AccessSettings> = {rules: RULES}) {
  const upstream = await createScriptedUpstream(t, []);
  const mirror = {url: upstream.url, push: 'deny' as const};
  const registries = [
    {...mirror, name: 'docker.io'},
    {...mirror, name: 'ghcr.io', library: false},
    {name: 'apps.local'},
  ];
  return {host: upstream.host, server: await startRuledServer(t, {access, registries})};
}

/** Requests that name a registry in each way in which one can be named. */
const REQUESTS = (registry: string): [method: string, path: string][] => [
  ['GET', `/v2/app/manifests/v1?ns=${registry}`],
  ['HEAD', `/v2/app/manifests/v1?ns=${registry}`],
  ['GET', `/v2/${registry}/app/manifests/v1`],
  ['GET', `/v2/${registry}/app/manifests/v1?ns=${registry}`],
  ['GET', `/v2/${registry}/NOT-A-NAME/manifests/v1`],
  ['GET', `/v2/${registry}/NOT-A-NAME/manifests/v1?ns=${registry}`],
  ['GET', `/v2/app/manifests/${'not-a-tag-'.repeat(20)}?ns=${registry}`],
  ['GET', `/v2/app/blobs/${digest}?ns=${registry}`],
  ['GET', `/v2/app/tags/list?ns=${registry}`],
  ['GET', `/v2/${registry}/app/referrers/${digest}`],
  ['GET', `/v2/_catalog?ns=${registry}`],
  ['PUT', `/v2/app/manifests/v1?ns=${registry}`],
  ['PUT', `/v2/${registry}/app/manifests/v1`],
  ['POST', `/v2/app/blobs/uploads/?ns=${registry}`],
  ['POST', `/v2/${registry}/app/blobs/uploads/`],
  ['DELETE', `/v2/${registry}/app/manifests/${digest}`],
  ['PATCH', `/v2/${registry}/app/manifests/v1`],
  ['PATCH', `/v2/app/manifests/v1?ns=${registry}`],
];

/** The whole answer, with the same name for each registry. */
function comparable({status, headers, body}: RuledAnswer, {port}: RuledServer, registry: string): string {
  const {date: _, 'x-request-id': id = '', 'content-length': _length, ...rest} = headers;
  return JSON.stringify({status, headers: rest, body: body.toString()})
    .replaceAll(String(id), 'ID')
    .replaceAll(`:${port}`, ':PORT')
    .replaceAll(registry, 'REGISTRY');
}

const denied: [who: string, sender: Sender][] = [
  ['who has not logged in', 'remote'],
  ['who has not logged in, on this machine,', 'local'],
  ['whom no rule allows anything', STRANGER],
];

for (const [who, sender] of denied)
  test(`a caller ${who} cannot tell a registry that is configured from one that is not, nor what takes pushes`, async (t) => {
    const {server, host} = await start(t);
    for (const [index, [method, path]] of REQUESTS('quay.io').entries()) {
      const absent = await server.send(sender, {method, path});
      const expected = comparable(absent, server, 'quay.io');
      if (method !== 'PATCH' && absent.status !== 400)
        t.is(absent.status, typeof sender === 'string' ? 401 : 403, path);
      for (const registry of ['ghcr.io', 'apps.local']) {
        const [, there = ''] = REQUESTS(registry)[index] ?? [];
        const got = await server.send(sender, {method, path: there});
        t.is(comparable(got, server, registry), expected, `${method} ${there}`);
        t.false(got.body.includes(host));
      }
    }
  });

test('who may pull there is told which registries it may pull from, and no other', async (t) => {
  const {server} = await start(t);
  const path = '/v2/app/tags/list?ns=nowhere.example';
  const reader = errorOf(await server.send(READER, {path}));
  t.is(reader.code, 'NAME_UNKNOWN');
  t.is(reader.message, 'registry "nowhere.example" is not configured here; configured are: apps.local');
  const root = errorOf(await server.send(ROOT, {path}));
  t.regex(root.message, /; configured are: docker\.io, ghcr\.io, apps\.local$/);
});

test('who may push to a mirror, or pull from it, is told that it takes no pushes', async (t) => {
  const {server, host} = await start(t);
  for (const sender of [WRITER, ROOT]) {
    const got = await server.send(sender, {method: 'PUT', path: '/v2/ghcr.io/app/manifests/v1'});
    t.is(got.status, 405);
    t.true(errorOf(got).message.includes(`push to ${host} itself`));
  }
});

test('without rules everybody is told what is configured, and where to push', async (t) => {
  const {server, host} = await start(t, {});
  for (const method of ['GET', 'PUT', 'DELETE']) {
    const unknown = await server.send('remote', {method, path: '/v2/quay.io/app/manifests/v1'});
    t.is(unknown.status, 404, method);
    t.regex(errorOf(unknown).message, /configured are: docker\.io, ghcr\.io, apps\.local$/);
  }
  const got = await server.send('remote', {method: 'PUT', path: '/v2/ghcr.io/app/manifests/v1'});
  t.is(got.status, 405);
  t.true(errorOf(got).message.includes(`push to ${host} itself`));
  const patch = await server.send('remote', {method: 'PATCH', path: '/v2/ghcr.io/app/manifests/v1'});
  t.is(patch.headers['allow'], 'GET, HEAD');
});
