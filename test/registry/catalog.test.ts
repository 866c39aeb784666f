import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../src/caller.ts';
import {parseName} from '../../src/oci/name.ts';
import {createCatalog} from '../../src/registry/catalog.ts';
import {type Backref, type ProxyAnswer, startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer} from '../support/content.ts';
import {registryOver} from '../support/registry.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const PATH = '/v2/_catalog';
const image = imageManifest();
const namesOf = ({json}: ProxyAnswer) => (json() as {repositories: string[]}).repositories;

/** Two registries of which any manifest named `yes` is there and any other is not. */
async function start(t: ExecutionContext): Promise<Backref> {
  const script = [
    {
      request: /\/manifests\/yes$/,
      answer: manifestAnswer(image),
      always: true as const,
      optional: true as const,
    },
    {request: /\/manifests\/no$/, answer: {status: 404}, always: true as const, optional: true as const},
  ];
  const docker = await createScriptedUpstream(t, script);
  const ghcr = await createScriptedUpstream(t, script);
  return startBackref(t, {registries: [docker, {url: ghcr.url, name: 'ghcr.io', aliases: ['ghcr']}]});
}

async function pull(proxy: Backref, ...names: string[]): Promise<void> {
  for (const name of names) await proxy.ask(`/v2/${name}/manifests/yes`);
}

test('an empty cache has an empty catalog', async (t) => {
  const proxy = await start(t);
  const got = await proxy.ask(PATH);
  t.is(got.status, 200);
  t.deepEqual(got.json(), {repositories: []});
  t.is(got.headers['link'], undefined);
});

test('it lists what is cached, other registries with their name in front, sorted by bytes', async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'zebra', 'org/app', 'ghcr.io/org/tool', 'ghcr.io/a');
  t.deepEqual(namesOf(await proxy.ask(PATH)), ['ghcr.io/a', 'ghcr.io/org/tool', 'library/zebra', 'org/app']);
});

test('it does not list what was only asked for', async (t) => {
  const proxy = await start(t);
  await proxy.ask('/v2/org/absent/manifests/no');
  t.deepEqual(namesOf(await proxy.ask(PATH)), []);
});

test('with ns it lists one registry, names as they are there', async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'org/app', 'ghcr.io/org/tool');
  const ghcr = await proxy.ask(`${PATH}?ns=ghcr.io`);
  t.deepEqual(namesOf(ghcr), ['org/tool']);
  t.is(ghcr.headers['oci-namespace'], 'ghcr.io');
  t.deepEqual(namesOf(await proxy.ask(`${PATH}?ns=ghcr`)), ['org/tool']);
  t.deepEqual(namesOf(await proxy.ask(`${PATH}?ns=docker.io`)), ['org/app']);
});

test("by a registry's own host it lists that registry, names as they are there, and ns takes precedence over the host", async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'org/app', 'ghcr.io/org/tool', 'ghcr.io/org/zoo');
  for (const Host of ['ghcr.io', 'ghcr.io:443', 'GHCR.io']) {
    const ghcr = await proxy.ask(PATH, {headers: {Host}});
    t.deepEqual(namesOf(ghcr), ['org/tool', 'org/zoo']);
    t.is(ghcr.headers['oci-namespace'], undefined);
    const page = await proxy.ask(`${PATH}?n=1`, {headers: {Host}});
    t.is(page.headers['link'], '</v2/_catalog?n=1&last=org%2Ftool>; rel="next"');
  }
  t.deepEqual(namesOf(await proxy.ask(`${PATH}?ns=docker.io`, {headers: {Host: 'ghcr.io'}})), ['org/app']);
  const all = ['ghcr.io/org/tool', 'ghcr.io/org/zoo', 'org/app'];
  t.deepEqual(namesOf(await proxy.ask(PATH, {headers: {Host: 'localhost:5000'}})), all);
});

test('an ns that is not configured is NAME_UNKNOWN', async (t) => {
  const proxy = await start(t);
  const got = await proxy.ask(`${PATH}?ns=quay.io`);
  t.is(got.status, 404);
  t.like(got.json(), {errors: [{code: 'NAME_UNKNOWN'}]});
});

test('pages go over all registries, and Link leads from one to the next', async (t) => {
  const proxy = await start(t);
  const names = ['a/a', 'ghcr.io/a', 'ghcr.io/b/c', 'ghcr.io/z', 'gi/a', 'library/x', 'z/z'];
  await pull(proxy, ...names);
  for (const n of [1, 2, 3, 6, 7, 8]) {
    const seen: string[] = [];
    let path: string | undefined = `${PATH}?n=${n}`;
    while (path !== undefined) {
      const got: ProxyAnswer = await proxy.ask(path);
      t.true(namesOf(got).length <= n);
      seen.push(...namesOf(got));
      path = /^<([^>]*)>; rel="next"$/.exec(String(got.headers['link']))?.[1];
    }
    t.deepEqual(seen, names, `n=${n}`);
  }
});

test('Link repeats n and ns', async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'ghcr.io/a', 'ghcr.io/b');
  const got = await proxy.ask(`${PATH}?n=1&ns=ghcr.io`);
  t.is(got.headers['link'], '</v2/_catalog?n=1&last=a&ns=ghcr.io>; rel="next"');
});

test('last is a position, whether or not a repository has that name', async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'a/a', 'ghcr.io/b', 'library/c');
  for (const [last, names] of [
    ['', ['a/a', 'ghcr.io/b', 'library/c']],
    ['a/a', ['ghcr.io/b', 'library/c']],
    ['ghcr.io', ['ghcr.io/b', 'library/c']],
    ['ghcr.io/', ['ghcr.io/b', 'library/c']],
    ['ghcr.io/b', ['library/c']],
    ['ghcr.io0', ['library/c']],
    ['~', []],
  ] as const) {
    t.deepEqual(namesOf(await proxy.ask(`${PATH}?last=${encodeURIComponent(last)}`)), [...names], last);
  }
});

test('n=0 is empty without a Link, an oversized n is clamped, a malformed one is 400', async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'a/a', 'b/b');
  const none = await proxy.ask(`${PATH}?n=0`);
  t.deepEqual(namesOf(none), []);
  t.is(none.headers['link'], undefined);
  t.is(namesOf(await proxy.ask(`${PATH}?n=999999999`)).length, 2);
  t.is((await proxy.ask(`${PATH}?n=-1`)).status, 400);
});

test('a name that could belong to two registries is listed once', async (t) => {
  const proxy = await start(t);
  await pull(proxy, 'ghcr.io/org/app');
  await proxy.ask('/v2/ghcr.io/org/app/manifests/yes?ns=docker.io');
  const got = await proxy.ask(`${PATH}?n=1`);
  t.deepEqual(namesOf(got), ['ghcr.io/org/app']);
  t.is(got.headers['link'], undefined);
});

test('it asks no upstream', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask(PATH)).status, 200);
});

test('it does not list repositories that the caller may not pull from, and fills its pages with others', async (t) => {
  const names = ['a', 'b/secret', 'c', 'd/secret', 'e', 'f'].map(parseName);
  const catalog = createCatalog({
    metadata: {
      repositories: async (_registry, {after = '', limit}) =>
        names.filter((name) => name > after).slice(0, limit),
    },
    access: {
      visibleRepositories: (_registry, caller) =>
        caller === ANONYMOUS ? (name) => !name.endsWith('/secret') : undefined,
    },
  });
  const page = (n: number | undefined, last?: string) =>
    catalog.ofOne(registryOver('example.test', {}), {n, last}, ANONYMOUS);
  t.deepEqual(await page(undefined), {entries: ['a', 'c', 'e', 'f'], next: undefined});
  t.deepEqual(await page(2), {entries: ['a', 'c'], next: 'c'});
  t.deepEqual(await page(2, 'c'), {entries: ['e', 'f'], next: undefined});
});

test('a short page after many hidden repositories takes few queries', async (t) => {
  const hidden = Array.from({length: 5000}, (_, index) => `hidden/r${String(index).padStart(4, '0')}`);
  const names = [...hidden, 'visible'].map(parseName);
  let queries = 0;
  const catalog = createCatalog({
    metadata: {
      async repositories(_registry, {after = '', limit}) {
        queries += 1;
        return names.filter((name) => name > after).slice(0, limit);
      },
    },
    access: {visibleRepositories: () => (name) => name === 'visible'},
  });
  const page = await catalog.ofOne(registryOver('example.test', {}), {n: 1, last: undefined}, ANONYMOUS);
  t.deepEqual(page, {entries: ['visible'], next: undefined});
  t.true(queries <= 10, `${queries} queries`);
});
