import test from 'ava';
import {type Action, ANONYMOUS} from '../../src/caller.ts';
import type {DoorParts, Endpoint} from '../../src/http/door.ts';
import {createRouter, endpointsOf, type Verbs} from '../../src/http/routes.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {ask, ID, OPEN_DOOR, startHttpServer} from './http-server.ts';
import {errorOf} from './spec-codes.ts';

/** Endpoints that anybody may ask, whatever credential the request has. */
const OPEN = ['/token', '/healthz', '/readyz'];

const calls: string[] = [];

/** Verbs that record that they were called. */
const verbs = new Proxy({} as Verbs, {
  get: (_, noun) =>
    new Proxy({}, {get: (_, verb) => () => void calls.push(`${String(noun)}.${String(verb)}`)}),
});

const asked: [place: string, caller: string, action: Action][] = [];

/** Denies everything, and records what it was asked. */
const denial: DoorParts['access'] = {
  ...OPEN_DOOR.access,
  registry(registry, {key}, action) {
    asked.push([registry?.name ?? 'all', key, action]);
    return {verdict: 'denied', failure: undefined, reason: undefined};
  },
  repository({repository}, {key}, action) {
    asked.push([`${repository.registry}/${repository.name}`, key, action]);
    return {verdict: 'denied', failure: undefined, reason: undefined};
  },
};

const pathOf = ({path}: Endpoint): string =>
  path
    .replace('{/}', '/')
    .replace('*name', 'org/app')
    .replace(':digest', digestOf(Buffer.from('a')))
    .replace(':reference', 'latest')
    .replace(':session', ID);

const endpoints = endpointsOf(verbs);

test('every path of the router is an endpoint of the table, or the one that refuses all others', (t) => {
  const paths = createRouter(endpoints, OPEN_DOOR, false).stack.map(({path}) => path);
  t.deepEqual(paths, [...endpoints.map(({path}) => path), '/{*path}']);
});

test('the endpoints that need no credential are these alone, and the ping needs nothing else', (t) => {
  t.deepEqual(
    endpoints.filter(({needs}) => needs === 'none').map(({path}) => path),
    OPEN,
  );
  t.deepEqual(
    endpoints.filter(({needs}) => needs === 'login').map(({path}) => path),
    ['/v2{/}'],
  );
});

for (const endpoint of endpoints.filter(({needs}) => needs === 'registry' || needs === 'repository'))
  for (const [method, operation] of Object.entries(endpoint.methods))
    test.serial(`${method} ${endpoint.path} calls no verb when access is denied`, async (t) => {
      const {port, faults} = await startHttpServer(t, {verbs, access: denial});
      calls.length = 0;
      asked.length = 0;
      const got = await ask(port, method, pathOf(endpoint));
      t.is(got.status, 403);
      if (method !== 'HEAD') t.is(errorOf(got).code, 'DENIED');
      t.deepEqual(calls, []);
      t.deepEqual(faults, []);
      const place = endpoint.needs === 'registry' ? 'all' : 'docker.io/org/app';
      t.deepEqual(asked, [[place, ANONYMOUS.key, 'action' in operation ? operation.action : 'pull']]);
    });

test.serial('the metrics need the permission to operate the server, and nothing else does', async (t) => {
  t.deepEqual(
    endpoints.filter(({needs}) => needs === 'operator').map(({path}) => path),
    ['/metrics'],
  );
  const {port} = await startHttpServer(t, {verbs, access: denial});
  calls.length = 0;
  asked.length = 0;
  for (const method of ['GET', 'HEAD']) t.is((await ask(port, method, '/metrics')).status, 403);
  t.deepEqual(asked, [
    ['all', ANONYMOUS.key, 'admin'],
    ['all', ANONYMOUS.key, 'admin'],
  ]);
  t.deepEqual(calls, []);
});

test.serial('HEAD is authorized as the GET that answers it', async (t) => {
  const {port} = await startHttpServer(t, {verbs, access: denial});
  asked.length = 0;
  t.is((await ask(port, 'HEAD', '/v2/app/tags/list')).status, 403);
  t.is((await ask(port, 'HEAD', '/v2/_catalog?ns=ghcr.io')).status, 403);
  t.deepEqual(asked, [
    ['docker.io/app', ANONYMOUS.key, 'pull'],
    ['ghcr.io', ANONYMOUS.key, 'pull'],
  ]);
  t.deepEqual(calls, []);
});

test.serial('what is unknown at the door is decided by the verb', async (t) => {
  const unknown = () => ({verdict: 'unknown' as const});
  const {port} = await startHttpServer(t, {
    verbs,
    access: {...OPEN_DOOR.access, registry: unknown, repository: unknown},
  });
  calls.length = 0;
  await ask(port, 'GET', '/v2/app/tags/list');
  t.deepEqual(calls, ['tagLists.list']);
});
