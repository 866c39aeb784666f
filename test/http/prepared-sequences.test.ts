import {createServer} from 'node:http';
import type {AddressInfo} from 'node:net';
import test from 'ava';
import fc from 'fast-check';
import {type Backref, createMovableClock, startBackref, waiting} from '../support/backref.ts';
import {imageManifest, randomBlob} from '../support/content.ts';
import {pusherTo} from '../support/pusher.ts';
import {indexBytes, referrerOf} from '../support/referrers.ts';
import {createRun, type Lifetime} from '../support/shared.ts';
import {openWay, shared} from './ways.ts';

/** Two repositories: `app` of an upstream, whose tag moves, and `registry-1.example/own`, which is pushed to. */
const images = [imageManifest(), imageManifest()] as const;
const blob = randomBlob(500);
const referrer = referrerOf(images[0]);
const OWN = 'registry-1.example/own';
const REPOSITORIES = ['app', OWN] as const;

const pathsOf = (repository: string): string[] => [
  `/v2/${repository}/manifests/latest`,
  ...images.map(({digest}) => `/v2/${repository}/manifests/${digest}`),
  `/v2/${repository}/blobs/${blob.digest}`,
  `/v2/${repository}/referrers/${images[0].digest}`,
];
const PATHS = REPOSITORIES.flatMap(pathsOf);

type Step =
  | {do: 'ask anew'; path: string}
  | {do: 'move time' | 'set the clock'; ms: number}
  | {do: 'move the tag'; to: 0 | 1 | undefined}
  | {do: 'push'; image: 0 | 1}
  | {
      do:
        | 'push a referrer'
        | 'push a blob'
        | 'stop the upstream'
        | 'start the upstream'
        | 'collect'
        | 'reload';
    }
  | {do: 'delete'; path: string}
  | {do: 'evict'; tag: boolean};

const image = fc.constantFrom(0 as const, 1 as const);
const plain = (
  ...names: (
    | 'push a referrer'
    | 'push a blob'
    | 'stop the upstream'
    | 'start the upstream'
    | 'collect'
    | 'reload'
  )[]
) => fc.constantFrom(...names).map((name) => ({do: name}));

const step: fc.Arbitrary<Step> = fc.oneof(
  {arbitrary: fc.constantFrom(...PATHS).map((path) => ({do: 'ask anew' as const, path})), weight: 1},
  {
    arbitrary: fc.constantFrom(0, 300, 999, 1000, 61_000).map((ms) => ({do: 'move time' as const, ms})),
    weight: 2,
  },
  {
    arbitrary: fc.constantFrom(-5000, -500, 500).map((ms) => ({do: 'set the clock' as const, ms})),
    weight: 1,
  },
  {
    arbitrary: fc.option(image, {nil: undefined}).map((to) => ({do: 'move the tag' as const, to})),
    weight: 1,
  },
  {arbitrary: image.map((pushed) => ({do: 'push' as const, image: pushed})), weight: 2},
  {
    arbitrary: plain(
      'push a referrer',
      'push a blob',
      'stop the upstream',
      'start the upstream',
      'collect',
      'reload',
    ),
    weight: 2,
  },
  {
    arbitrary: fc.constantFrom(...pathsOf(OWN).slice(0, 4)).map((path) => ({do: 'delete' as const, path})),
    weight: 1,
  },
  {arbitrary: fc.boolean().map((tag) => ({do: 'evict' as const, tag})), weight: 1},
);

/** What is read after each step, so that most of it is prepared before the next one. */
const textsFor = (port: number): string[] =>
  PATHS.flatMap((path) =>
    [`GET ${path}`, ...(path.endsWith('latest') || path.includes('/blobs/') ? [`HEAD ${path}`] : [])].map(
      (line) => `${line} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`,
    ),
  );

/** A registry whose tag `latest` moves, and which can fail. */
async function startUpstream(t: Lifetime) {
  const state = {tag: 0 as 0 | 1 | undefined, isDown: false};
  const named = (reference: string) =>
    reference === 'latest'
      ? state.tag === undefined
        ? undefined
        : images[state.tag]
      : images.find(({digest}) => digest === reference);
  const server = createServer(({url = '', method}, response) => {
    const [, kind, reference = ''] = /^\/v2\/library\/app\/(\w+)\/([^?]+)/.exec(url) ?? [];
    if (state.isDown) return void response.writeHead(503, {'content-type': 'application/json'}).end('{}');
    const send = (type: string, bytes: Buffer, digest?: string) => {
      response.writeHead(200, {
        'content-type': type,
        'content-length': bytes.length,
        ...(digest ? {'docker-content-digest': digest} : {}),
      });
      response.end(method === 'HEAD' ? undefined : bytes);
    };
    const found = kind === 'manifests' ? named(reference) : undefined;
    if (found) return send(found.mediaType, found.bytes, found.digest);
    if (kind === 'blobs' && reference === blob.digest) return send('application/octet-stream', blob.bytes);
    if (kind === 'referrers') return send('application/vnd.oci.image.index.v1+json', indexBytes([]));
    const errors = [{code: 'MANIFEST_UNKNOWN', message: 'unknown'}];
    response.writeHead(404, {'content-type': 'application/json'}).end(JSON.stringify({errors}));
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.teardown(() => void server.close().closeAllConnections());
  return {url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, state};
}

type Upstream = Awaited<ReturnType<typeof startUpstream>>;

/** Everything but reading. */
async function change(proxy: Backref, {state}: Upstream, taken: Step, ttl: {now: number}): Promise<void> {
  const own = pusherTo(proxy, OWN);
  const signal = new AbortController().signal;
  switch (taken.do) {
    case 'ask anew':
      await proxy.ask(taken.path, {headers: {'cache-control': 'no-cache'}});
      return;
    case 'move time':
      return proxy.clock.move(taken.ms);
    case 'set the clock':
      return proxy.clock.moveWall(taken.ms);
    case 'move the tag':
      state.tag = taken.to;
      return;
    case 'push':
      await own.manifest(images[taken.image], 'latest');
      return;
    case 'push a referrer':
      await own.manifest(referrer);
      return;
    case 'push a blob':
      await own.blob(blob);
      return;
    case 'stop the upstream':
      state.isDown = true;
      return;
    case 'start the upstream':
      state.isDown = false;
      return;
    case 'delete':
      await proxy.ask(taken.path, {method: 'DELETE'});
      return;
    case 'collect':
      await (await proxy.server.commands()).collect({grace: 0, signal, progress: () => {}});
      return;
    case 'evict':
      await evict(proxy, taken.tag ? 'latest' : images[0].digest, signal);
      return;
    case 'reload':
      ttl.now = ttl.now === 60_000 ? 2000 : 60_000;
      return;
  }
}

async function evict({server}: Backref, reference: string, signal: AbortSignal): Promise<void> {
  const separator = reference.includes(':') ? '@' : ':';
  const images = [`docker.io/library/app${separator}${reference}`];
  await (await server.commands()).remove({images, dryRun: false, signal, progress: () => {}});
}

/** Uses are written soon, or nothing could be evicted. */
const clockOf = () => waiting(createMovableClock(), (ms) => (ms === 60_000 ? 20 : ms));

const registriesOf = (url: string, ttl: number) => [
  {url, tags: {ttl}, referrers: {mode: 'api' as const, ttl}},
  {push: 'local' as const, validate: {blobs: false, children: false, sizes: false}},
];

test('whatever happens in whatever order, no prepared answer differs from what the ordinary way answers', async (t) => {
  let compared = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, {minLength: 10, maxLength: 25}), async (steps) => {
      const scope = createRun();
      try {
        const upstream = await startUpstream(scope);
        const ttl = {now: 60_000};
        const proxy = await startBackref(scope, {
          registries: registriesOf(upstream.url, ttl.now),
          clock: clockOf(),
        });
        const [table, ordinary] = [
          await openWay(scope, proxy.port, 'table'),
          await openWay(scope, proxy.port, 'ordinary'),
        ];
        for (const taken of steps) {
          await change(proxy, upstream, taken, ttl);
          if (taken.do === 'reload') proxy.reload({registries: registriesOf(upstream.url, ttl.now)});
          for (const text of textsFor(proxy.port)) {
            const front = await openWay(scope, proxy.port, 'front');
            const answers = [await front.ask(text), await table.ask(text)];
            const expected = shared(await ordinary.ask(text));
            for (const answer of answers.filter((one) => one.includes('\r\nCache-Status: backref;hit'))) {
              compared += 1;
              if (shared(answer) !== expected) throw new Error(`${answer}\ninstead of\n${expected}`);
            }
          }
        }
      } finally {
        await scope.end();
      }
    }),
    {numRuns: 12},
  );
  t.true(compared > 500, String(compared));
});
