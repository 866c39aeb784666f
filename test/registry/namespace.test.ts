import test from 'ava';
import fc from 'fast-check';
import {type ErrorCode, OciError} from '../../src/oci/errors.ts';
import {isRepositoryName} from '../../src/oci/name.ts';
import {type RequestedName, registryOf, routeOf} from '../../src/registry/namespace.ts';
import {createRegistries, type Registry} from '../../src/registry/registries.ts';
import type {Upstream} from '../../src/upstream/port.ts';
import {registryOver} from '../support/registry.ts';

/** Routing asks nobody. */
const refuse = (): never => {
  throw new Error('routing must not ask an upstream');
};

const upstream = (host: string): Upstream => ({
  host,
  quota: refuse,
  headManifest: refuse,
  getManifest: refuse,
  headBlob: refuse,
  getBlob: refuse,
  streamBlob: refuse,
  listTags: refuse,
  hasTags: refuse,
  checkLogin: refuse,
  listReferrers: refuse,
  close: refuse,
});

const registry = (name: string, changes: Partial<Registry> = {}): Registry => ({
  ...registryOver(name, upstream(name)),
  ...changes,
});

const ghcr = registry('ghcr.io', {hosts: ['ghcr.mirror.example']});
const all = [
  registry('docker.io', {library: true, aliases: ['index.docker.io', 'registry-1.docker.io']}),
  ghcr,
  registry('localhost:5001'),
  registry('Mixed.Example'),
];
const registries = createRegistries(all, 'docker.io');
const withoutDefault = createRegistries(all, undefined);

const route = (asked: Partial<RequestedName>, among = registries) => {
  const found = routeOf(among, {name: 'app', ns: undefined, host: undefined, ...asked});
  return `${found.registry.name} ${found.repository.name}`;
};

const rows: [title: string, asked: Partial<RequestedName>, route: string][] = [
  ['a plain name belongs to the default registry', {name: 'org/app'}, 'docker.io org/app'],
  ['one component of Docker Hub gets library/', {name: 'alpine'}, 'docker.io library/alpine'],
  ['library/ is not added twice', {name: 'library/alpine'}, 'docker.io library/alpine'],
  ['one component elsewhere gets nothing', {name: 'app', ns: 'ghcr.io'}, 'ghcr.io app'],
  ['ns chooses the registry', {name: 'org/app', ns: 'ghcr.io'}, 'ghcr.io org/app'],
  ['ns of Docker Hub adds library/', {name: 'alpine', ns: 'docker.io'}, 'docker.io library/alpine'],
  ['an alias in ns is its registry', {name: 'org/app', ns: 'registry-1.docker.io'}, 'docker.io org/app'],
  ['ns in upper case is the same registry', {name: 'org/app', ns: 'GHCR.IO'}, 'ghcr.io org/app'],
  ['ns in lower case finds a name in mixed case', {name: 'a/b', ns: 'mixed.example'}, 'Mixed.Example a/b'],
  ['ns with a port is the name with that port', {name: 'a/b', ns: 'localhost:5001'}, 'localhost:5001 a/b'],
  ['the first component chooses the registry', {name: 'ghcr.io/org/app'}, 'ghcr.io org/app'],
  ['a first component with a port too', {name: 'localhost:5001/app'}, 'localhost:5001 app'],
  ['an alias as first component is its registry', {name: 'index.docker.io/a/b'}, 'docker.io a/b'],
  ['after the first component library/ is added too', {name: 'docker.io/alpine'}, 'docker.io library/alpine'],
  [
    'a first component that is not a registry is part of the name on a registry without library',
    {name: 'my.group/a', ns: 'ghcr.io'},
    'ghcr.io my.group/a',
  ],
  [
    'a first component without a dot or a port is part of the name',
    {name: 'localhost/a'},
    'docker.io localhost/a',
  ],
  ['a dot further back is part of the name', {name: 'org/app.v2'}, 'docker.io org/app.v2'],
  ['ns and first component the same: cut', {name: 'ghcr.io/org/app', ns: 'ghcr.io'}, 'ghcr.io org/app'],
  ['the same by alias: cut', {name: 'docker.io/alpine', ns: 'index.docker.io'}, 'docker.io library/alpine'],
  ['ns and first component differ: kept', {name: 'ghcr.io/a', ns: 'docker.io'}, 'docker.io ghcr.io/a'],
  ['the component is cut once', {name: 'ghcr.io/ghcr.io/a', ns: 'ghcr.io'}, 'ghcr.io ghcr.io/a'],
  ['a registry alone is a name like any other', {name: 'ghcr.io'}, 'docker.io library/ghcr.io'],
  ['a registry alone with the same ns too', {name: 'ghcr.io', ns: 'ghcr.io'}, 'ghcr.io ghcr.io'],
  ['the request host chooses the registry', {name: 'a/b', host: 'ghcr.mirror.example'}, 'ghcr.io a/b'],
  ['the host counts without its port', {name: 'a/b', host: 'GHCR.Mirror.example:443'}, 'ghcr.io a/b'],
  ["a registry's own name is a host of it", {name: 'a/b', host: 'ghcr.io'}, 'ghcr.io a/b'],
  ['another host is the default registry', {name: 'a/b', host: '127.0.0.1:5000'}, 'docker.io a/b'],
  ['ns goes before the host', {name: 'a/b', ns: 'docker.io', host: 'ghcr.io'}, 'docker.io a/b'],
  ['the first component goes before the host', {name: 'ghcr.io/a', host: 'localhost:5001'}, 'ghcr.io a'],
];

for (const [title, asked, expected] of rows) {
  test(title, (t) => {
    t.is(route(asked), expected);
  });
}

test('a route keeps the name as the client wrote it', (t) => {
  const found = routeOf(registries, {name: 'ghcr.io/org/app', ns: 'ghcr.io', host: undefined});
  t.is(found.asked, 'ghcr.io/org/app');
  t.is(routeOf(registries, {name: 'alpine', ns: undefined, host: undefined}).asked, 'alpine');
});

const faults: [title: string, asked: Partial<RequestedName>, code: ErrorCode][] = [
  ['an ns that is not configured', {ns: 'quay.io'}, 'NAME_UNKNOWN'],
  ['an empty ns', {ns: ''}, 'NAME_UNKNOWN'],
  ['an ns with a port that is not configured', {ns: 'ghcr.io:443'}, 'NAME_UNKNOWN'],
  ['an ns that is an address', {ns: 'http://127.0.0.1/'}, 'NAME_UNKNOWN'],
  ['an ns in letters that only lower-case to ASCII', {ns: 'doc\u212aer.io'}, 'NAME_UNKNOWN'],
  ['a property of every object as ns', {ns: '__proto__'}, 'NAME_UNKNOWN'],
  [
    'a first component that is the host of another registry',
    {name: 'registry.corp.example/a/b'},
    'NAME_UNKNOWN',
  ],
  ['a first component that is a typo', {name: 'ghrc.io/org/app'}, 'NAME_UNKNOWN'],
  ['a first component with a port that is not configured', {name: 'localhost:5002/app'}, 'NAME_UNKNOWN'],
  ['a first component that is an address', {name: '127.0.0.1:5000/app'}, 'NAME_UNKNOWN'],
  ['such a component after ns', {name: 'ghrc.io/org/app', ns: 'docker.io'}, 'NAME_UNKNOWN'],
  ['such a component after the name of the registry', {name: 'docker.io/ghrc.io/app'}, 'NAME_UNKNOWN'],
  ['a first component in such letters', {name: 'doc\u212aer.io/app'}, 'NAME_INVALID'],
  ['an upper-case name', {name: 'org/App'}, 'NAME_INVALID'],
  ['an empty name', {name: ''}, 'NAME_INVALID'],
  ['a registry with a slash and nothing more', {name: 'ghcr.io/'}, 'NAME_INVALID'],
  ['a path upwards', {name: 'ghcr.io/../app'}, 'NAME_INVALID'],
  ['a path upwards after ns', {name: '..', ns: 'ghcr.io'}, 'NAME_INVALID'],
];

for (const [title, asked, code] of faults) {
  test(`${title} is ${code}`, (t) => {
    t.is(t.throws(() => route(asked), {instanceOf: OciError})?.code, code);
  });
}

test('NAME_UNKNOWN lists the configured registries', (t) => {
  const error = t.throws(() => registryOf(registries, {ns: 'quay.io', host: undefined}), {
    instanceOf: OciError,
  });
  t.regex(error?.message ?? '', /"quay\.io".*docker\.io, ghcr\.io, localhost:5001, Mixed\.Example/);
  t.is(error?.status, 404);
});

test('NAME_UNKNOWN for a name that begins with a host says the same', (t) => {
  const error = t.throws(() => route({name: 'ghrc.io/org/app'}), {instanceOf: OciError});
  t.regex(error?.message ?? '', /"ghrc\.io".*docker\.io, ghcr\.io, localhost:5001, Mixed\.Example/);
  t.is(error?.status, 404);
});

test('without a default registry a plain name is NAME_UNKNOWN and says what to write', (t) => {
  const error = t.throws(() => route({name: 'org/app'}, withoutDefault), {instanceOf: OciError});
  t.is(error?.code, 'NAME_UNKNOWN');
  t.regex(error?.message ?? '', /write REGISTRY\/org\/app; configured are: .*ghcr\.io/);
});

test('without a default registry a malformed name is NAME_INVALID all the same', (t) => {
  const error = t.throws(() => route({name: 'org/App'}, withoutDefault), {instanceOf: OciError});
  t.is(error?.code, 'NAME_INVALID');
});

test('without a default registry prefix, ns and host still find theirs', (t) => {
  t.is(route({name: 'ghcr.io/a/b'}, withoutDefault), 'ghcr.io a/b');
  t.is(route({name: 'a/b', ns: 'ghcr.io'}, withoutDefault), 'ghcr.io a/b');
  t.is(route({name: 'a/b', host: 'ghcr.io'}, withoutDefault), 'ghcr.io a/b');
});

test('a request keeps the registries that it was routed with', (t) => {
  const found = routeOf(registries, {name: 'a/b', ns: 'ghcr.io', host: undefined});
  t.is(found.registry, ghcr);
});

const piece = fc.constantFrom(
  'docker.io',
  'ghcr.io',
  'localhost:5001',
  'a',
  'B',
  '..',
  '.',
  '',
  '%2e',
  '\0',
  'é',
);
const nameLike = fc.oneof(
  fc.string({unit: 'binary'}),
  fc.array(piece, {maxLength: 5}).map((pieces) => pieces.join('/')),
);
const anything = fc.record({
  name: nameLike,
  ns: fc.option(nameLike, {nil: undefined}),
  host: fc.option(nameLike, {nil: undefined}),
});

for (const [what, among] of [
  ['with a default registry', registries],
  ['without one', withoutDefault],
] as const) {
  test(`any request ${what} leads to a configured registry and a valid name, or to an OciError`, (t) => {
    fc.assert(
      fc.property(anything, (asked) => {
        try {
          const found = routeOf(among, asked);
          return all.includes(found.registry) && isRepositoryName(found.repository.name);
        } catch (error) {
          return (
            error instanceof OciError && (error.code === 'NAME_UNKNOWN' || error.code === 'NAME_INVALID')
          );
        }
      }),
      {numRuns: 1000},
    );
    t.pass();
  });
}
