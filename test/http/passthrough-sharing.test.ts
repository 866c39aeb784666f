import test, {type ExecutionContext} from 'ava';
import {plainManifest, randomBlob, sameBytes} from '../support/content.ts';
import {BREAK} from '../support/scripted-upstream.ts';
import {
  basic,
  createPrivateRegistry,
  type PrivateRegistryOptions,
  startPassthrough,
} from './private-registry.ts';

const image = plainManifest();
/** Too large to be held back until it is verified. */
const arriving = randomBlob(3 * 2 ** 20);
const ALICE = basic('alice', 'sesame');
const BOB = basic('bob', 'builder');

/** Alice and Bob may both pull from team/app. */
async function start(t: ExecutionContext, changes: Pick<PrivateRegistryOptions, 'refusal' | 'before'>) {
  const upstream = await createPrivateRegistry(t, {
    users: {alice: 'sesame', bob: 'builder'},
    repositories: {
      'team/app': {
        readers: ['alice', 'bob'],
        tags: {1: image, 2: image},
        manifests: [],
        blobs: [arriving],
      },
    },
    ...changes,
  });
  return {upstream, server: await startPassthrough(t, upstream)};
}

for (const refusal of ['denied', 'hidden'] as const)
  test(`a download goes on for the others when its caller's permission ends, where the upstream says "${refusal}"`, async (t) => {
    const {promise: mayBreak, resolve: goOn} = Promise.withResolvers<void>();
    t.teardown(goOn);
    const path = `/v2/team/app/blobs/${arriving.digest}`;
    let isFirst = true;
    const {server, upstream} = await start(t, {
      refusal,
      before({method, url}) {
        if (!isFirst || method !== 'GET' || url !== path) return undefined;
        isFirst = false;
        const headers = {
          'content-type': 'application/octet-stream',
          'content-length': String(arriving.bytes.length),
        };
        return {headers, body: [arriving.bytes.subarray(0, 100_000), {wait: mayBreak}, BREAK]};
      },
    });
    const bob = await server.open(path, {headers: {host: 'private.mirror.test', authorization: BOB}});
    const alice = await server.open(path, {headers: {host: 'private.mirror.test', authorization: ALICE}});
    t.deepEqual([bob.statusCode, alice.statusCode], [200, 200]);
    bob.on('error', () => {}).resume();
    upstream.options.repositories['team/app']?.readers.splice(1);
    goOn();
    sameBytes(t, Buffer.concat(await alice.toArray()), arriving.bytes);
    server.clock.move(60_000);
    t.true((await server.as(BOB, path)).status >= 400);
  });

test('a list of tags is for the caller that the upstream gave it to', async (t) => {
  const list = '/v2/team/app/tags/list';
  const {server, upstream} = await start(t, {
    before: ({url, headers}) =>
      url.startsWith(list) && headers.authorization === 'Bearer of-bob'
        ? {headers: {'content-type': 'application/json'}, body: '{"name":"team/app","tags":["1"]}'}
        : undefined,
  });
  const tagsOf = async (who: string) => ((await server.as(who, list)).json() as {tags: string[]}).tags;
  for (const isKept of [false, true]) {
    const count = upstream.requests.length;
    t.deepEqual(await tagsOf(BOB), ['1']);
    t.deepEqual(await tagsOf(ALICE), ['1', '2']);
    t.is(upstream.requests.length === count, isKept);
  }
  upstream.fail(true);
  server.clock.move(60 * 60_000);
  t.deepEqual(await tagsOf(BOB), ['1']);
  t.deepEqual(await tagsOf(ALICE), ['1', '2']);
});

test('the upstream is asked again only after a while for what it denies to everybody', async (t) => {
  const {server, upstream} = await start(t, {});
  const path = '/v2/team/app/manifests/1';
  const asking = async (): Promise<number> => {
    const count = upstream.requests.length;
    t.is((await server.as(undefined, path)).status, 401);
    return upstream.requests.length - count;
  };
  t.true((await asking()) > 0);
  for (let count = 0; count < 10; count += 1) t.is(await asking(), 0);
  t.is((await server.as(ALICE, path)).status, 200);
  server.clock.move(5000);
  t.true((await asking()) > 0);
  upstream.options.repositories['team/app']?.readers.push('anonymous');
  server.clock.move(5000);
  t.is((await server.as(undefined, path)).status, 200);
});
