import {readFile} from 'node:fs/promises';
import test from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {describeConfig} from '../../src/config/show.ts';
import {valueAt} from '../../src/config/tree.ts';
import {DAY} from '../support/backref.ts';
import {loadGiven, oneRegistry, oneUpstream} from '../support/settings.ts';

const firstOf = async (yaml: string, env = {}, files = {}) => {
  const [registry] = (await loadGiven({yaml, env, files})).registries;
  if (!registry) throw new Error('no registry');
  return registry;
};

const upstreamOf = async (yaml: string, env = {}, files = {}) => {
  const {upstream} = await firstOf(yaml, env, files);
  if (!upstream) throw new Error('no upstream');
  return upstream;
};

test('without a file it mirrors Docker Hub at the root and six registries by name', async (t) => {
  const config = await loadGiven({});
  t.deepEqual(
    config.registries.map(({name, upstream}) => `${name} ${upstream?.url}`),
    [
      'docker.io https://registry-1.docker.io',
      'ghcr.io https://ghcr.io',
      'quay.io https://quay.io',
      'gcr.io https://gcr.io',
      'registry.k8s.io https://registry.k8s.io',
      'mcr.microsoft.com https://mcr.microsoft.com',
      'public.ecr.aws https://public.ecr.aws',
    ],
  );
  const [hub, ...others] = config.registries;
  t.like(hub, {default: true, library: true, aliases: ['index.docker.io', 'registry-1.docker.io']});
  t.true(others.every((registry) => !registry.default && !registry.library && registry.aliases.length === 0));
});

test('without a file every setting has its default', async (t) => {
  const {registries, ...rest} = await loadGiven({});
  t.deepEqual(rest, {
    listen: [
      {
        address: {host: '0.0.0.0', port: 5000},
        tls: undefined,
        serve: 'main',
        sendTimeout: 60_000,
        trustedProxies: [],
      },
    ],
    storage: {
      path: './data',
      blobs: {driver: 'fs', path: './data'},
      metadata: {driver: 'sqlite', path: 'data/meta.db'},
    },
    cache: {
      memory: 268_435_456,
      maxSize: {percent: 80},
      minFree: {percent: 5},
      highWatermark: 95,
      lowWatermark: 90,
      keep: [],
    },
    access: {
      mode: 'enforce',
      rules: undefined,
      groups: {},
      issuers: [],
      certificates: [],
      users: {htpasswd: undefined},
      tokens: {service: 'backref', ttl: 5 * 60_000, key: undefined, realm: undefined},
    },
    workers: 'auto',
    pins: [],
    shutdown: {grace: 30_000},
    limits: {
      connections: {total: 25_000, perAddress: 20_000},
      requests: {total: 25_000, perCaller: 20_000, pipelined: 100},
      uploads: {total: 2000, perCaller: 1000, unfinished: 10_000},
      headers: {size: 32_768, count: 200, timeout: 30_000},
      bodies: {timeout: 60_000, minRate: 1024, maxForm: 65_536},
    },
    uploads: {expireAfter: 86_400_000},
    garbage: {interval: 3_600_000, grace: 86_400_000},
    scrub: {every: 2_592_000_000},
    audit: {to: undefined, maxSize: 100 * 2 ** 20, keep: 10},
    log: {level: 'info', format: 'pretty'},
  });
  t.deepEqual(registries[1], {
    name: 'ghcr.io',
    default: false,
    aliases: [],
    hosts: [],
    library: false,
    upstream: {
      url: 'https://ghcr.io',
      insecure: false,
      credentials: undefined,
      realmHosts: [],
      redirectHosts: [],
      ca: [],
      timeouts: {connect: 2000, headers: 5000, idle: 30_000},
      concurrency: {heads: 32, manifests: 64, bodies: 100},
      breaker: {failures: 5, openFor: 10_000},
      rateLimitStatus: 503,
      quota: 'gentle',
    },
    repositories: {allow: [], deny: []},
    tags: {ttl: 60_000, maxStale: 604_800_000, keepDeleted: 604_800_000, absentTtl: 5000},
    tagRules: [],
    limits: {children: 50_000, depth: 8, blob: undefined, repository: undefined},
    referrers: {mode: 'auto', ttl: 60_000, maxStale: 604_800_000, prefetch: 'manifests', keep: undefined},
    push: 'deny',
    validate: {blobs: true, children: true, sizes: false},
    overlay: {tags: 'deny'},
    maxManifest: 4_194_304,
  });
});

test('the commented file of the project has the same effect as no file', async (t) => {
  const env = {BACKREF_CONFIG: 'config/backref.yaml'};
  t.deepEqual(await loadConfig({env}), await loadGiven({}));
});

const keysOf = (value: unknown): string[] =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, inner]) => [key, ...keysOf(inner)])
    : [];

test('the commented file has every setting', async (t) => {
  const text = await readFile('config/backref.yaml', 'utf8');
  const {registries, ...rest} = describeConfig(await loadGiven({}));
  const hub = valueAt(registries, ['docker.io']);
  const credentials = ['username', 'password', 'passwordFile', 'dockerConfig'];
  for (const key of [...keysOf(rest), ...keysOf(hub), ...credentials]) t.true(text.includes(`${key}:`), key);
});

const storageOf = async (storage: string) => {
  const {path, blobs, metadata} = (await loadGiven({yaml: `storage: ${storage}`})).storage;
  return [path, blobs.path, metadata.path];
};

test('blobs and metadata follow storage.path unless they have a path of their own', async (t) => {
  t.deepEqual(await storageOf('{path: /srv}'), ['/srv', '/srv', '/srv/meta.db']);
  t.deepEqual(await storageOf('{path: /srv, blobs: {path: /mnt}}'), ['/srv', '/mnt', '/srv/meta.db']);
  t.deepEqual(await storageOf('{path: /srv, metadata: {path: /ssd/m.db}}'), ['/srv', '/srv', '/ssd/m.db']);
});

test('without storage.path, the lock and the admin socket stay beside the metadata', async (t) => {
  t.deepEqual(await storageOf('{blobs: {path: /mnt}}'), ['./data', '/mnt', 'data/meta.db']);
  t.deepEqual(await storageOf('{metadata: {path: /ssd/m.db}}'), ['/ssd', './data', '/ssd/m.db']);
  t.deepEqual(await storageOf('{blobs: {path: /data}, metadata: {path: /data/meta.db}}'), [
    '/data',
    '/data',
    '/data/meta.db',
  ]);
});

test('an empty file and a file of comments have the same effect as no file', async (t) => {
  const none = await loadGiven({});
  t.deepEqual(await loadGiven({yaml: ''}), none);
  t.deepEqual(await loadGiven({yaml: '# nothing\nlisten:\n  # port: 1\n'}), none);
});

test('a file without registries keeps the built-in ones', async (t) => {
  const config = await loadGiven({yaml: 'listen: {port: 80}'});
  t.like(config.listen[0], {address: {host: '0.0.0.0', port: 80}});
  t.is(config.registries.length, 7);
});

test('a file with registries has only those, in its order', async (t) => {
  const config = await loadGiven({
    yaml: 'registries: {b.test: {upstream: {url: "https://b.test"}}, a.test: {upstream: {url: "https://a.test"}}}',
  });
  t.deepEqual(
    config.registries.map(({name}) => name),
    ['b.test', 'a.test'],
  );
});

test('at most one registry is the default', async (t) => {
  t.false((await firstOf(oneRegistry())).default);
  t.true((await firstOf(oneRegistry('default: true'))).default);
});

test('the configuration is frozen to its leaves', async (t) => {
  const config = await loadGiven({});
  const frozen = (value: unknown): boolean =>
    typeof value !== 'object' ||
    value === null ||
    (Object.isFrozen(value) && Object.values(value).every(frozen));
  t.true(frozen(config));
});

test('--config overrides BACKREF_CONFIG, which overrides config/backref.yaml', async (t) => {
  const files: Record<string, string> = {
    'config/backref.yaml': 'listen: {port: 1}',
    'env.yaml': 'listen: {port: 2}',
    'flag.yaml': 'listen: {port: 3}',
  };
  const readFile = async (path: string) => files[path] ?? '';
  const port = async (options: {file?: string; env?: Record<string, string>}) =>
    (await loadConfig({env: {}, readFile, ...options})).listen.map(({address}) =>
      'port' in address ? address.port : undefined,
    )[0];
  t.is(await port({}), 1);
  t.is(await port({env: {BACKREF_CONFIG: 'env.yaml'}}), 2);
  t.is(await port({file: 'flag.yaml', env: {BACKREF_CONFIG: 'env.yaml'}}), 3);
});

test('variables are replaced in values, with an optional default', async (t) => {
  const yaml = oneUpstream(
    'url: https://${HOST}:${PORT:-8443}',
    'breaker: {failures: "${FAILURES}"}',
    'timeouts: {idle: "${EMPTY:-9s}"}',
  );
  const upstream = await upstreamOf(yaml, {HOST: 'up.test', FAILURES: '3', EMPTY: ''});
  t.is(upstream.url, 'https://up.test:8443');
  t.is(upstream.breaker.failures, 3);
  t.is(upstream.timeouts.idle, 9000);
});

test('$${ is a literal ${, and the value of a variable is not expanded again', async (t) => {
  const yaml = oneUpstream('url: https://r.test', 'credentials: {username: "$${A}", password: "${B}$"}');
  const upstream = await upstreamOf(yaml, {A: 'x', B: '${A}'});
  t.deepEqual(upstream.credentials, {kind: 'basic', username: '${A}', password: '${A}$'});
});

test('a password comes from a file, less the newline at its end', async (t) => {
  const yaml = oneUpstream('url: https://r.test', 'credentials: {username: me, passwordFile: /secret}');
  for (const text of ['hunter2', 'hunter2\n', 'hunter2\r\n']) {
    const upstream = await upstreamOf(yaml, {}, {'/secret': text});
    t.deepEqual(upstream.credentials, {kind: 'basic', username: 'me', password: 'hunter2'});
  }
});

test('credentials may come from a Docker configuration', async (t) => {
  const yaml = oneUpstream(
    'url: https://r.test',
    'credentials: {dockerConfig: "${HOME}/.docker/config.json"}',
  );
  const upstream = await upstreamOf(
    yaml,
    {HOME: '/home/me'},
    {'/home/me/.docker/config.json': '{"auths": {}}'},
  );
  t.deepEqual(upstream.credentials, {kind: 'docker-config', path: '/home/me/.docker/config.json'});
});

test('an upstream URL is reduced to scheme and host', async (t) => {
  t.is((await upstreamOf(oneUpstream('url: https://R.test/'))).url, 'https://r.test');
  t.is(
    (await upstreamOf(oneUpstream('url: "http://[::1]:5000"', 'insecure: true'))).url,
    'http://[::1]:5000',
  );
});

const pushOf = async (lines: string) => (await firstOf(`registries: {r.test: {${lines}}}`)).push;
const UPSTREAM = 'upstream: {url: "https://r.test"}';

test('a registry without upstream is hosted and accepts pushes; one with an upstream is a mirror', async (t) => {
  const hosted = await firstOf('registries: {apps.local: }');
  t.is(hosted.upstream, undefined);
  t.is(hosted.push, 'local');
  t.is(await pushOf('push: local'), 'local');
  t.is(await pushOf(UPSTREAM), 'deny');
  for (const push of ['deny', 'local', 'through'] as const)
    t.is(await pushOf(`${UPSTREAM}, push: ${push}`), push);
});

test('validation and overlay of pushes are set for each registry', async (t) => {
  const registry = await firstOf(
    oneRegistry(
      'push: local',
      'validate: {blobs: false, sizes: true}',
      'overlay: {tags: allow}',
      'maxManifest: 16MiB',
      'referrers: {keep: 50}',
    ),
  );
  t.deepEqual(registry.validate, {blobs: false, children: true, sizes: true});
  t.deepEqual(registry.overlay, {tags: 'allow'});
  t.is(registry.maxManifest, 16 * 2 ** 20);
  t.is(registry.referrers.keep, 50);
});

const tagsOf = async (tags: string) => (await loadGiven({yaml: oneRegistry(`tags: ${tags}`)})).registries[0];

test('lifetimes of some tags inherit what they leave out from those of all other tags, else the default', async (t) => {
  const registry = await tagsOf(
    '[{match: v*, ttl: 1d}, {match: [a, "team/**:b"], absentTtl: 1s}, {ttl: 5m, maxStale: 30d}]',
  );
  const others = {ttl: 300_000, maxStale: 30 * DAY, keepDeleted: 7 * DAY, absentTtl: 5000};
  t.deepEqual(registry?.tags, others);
  t.deepEqual(registry?.tagRules, [
    {match: ['v*'], ...others, ttl: DAY},
    {match: ['a', 'team/**:b'], ...others, absentTtl: 1000},
  ]);
});

test('a list of lifetimes without any for all other tags leaves those at their defaults', async (t) => {
  const registry = await tagsOf('[{match: v*, ttl: 1d}]');
  t.deepEqual(registry?.tags, (await tagsOf('{}'))?.tags);
  t.deepEqual(await tagsOf('[]'), await tagsOf('{}'));
});

test('a lifetime without end makes tags usable without end, unless the file says otherwise', async (t) => {
  const forever = 3650 * DAY;
  t.like(await tagsOf('{ttl: forever}'), {tags: {ttl: forever, maxStale: forever, keepDeleted: 7 * DAY}});
  t.like(await tagsOf('{ttl: forever, maxStale: 1d}'), {tags: {ttl: forever, maxStale: DAY}});
  const registry = await tagsOf('[{match: v*, ttl: forever}, {maxStale: 1d}]');
  t.like(registry?.tagRules[0], {ttl: forever, maxStale: forever});
  t.like(registry?.tags, {ttl: 60_000, maxStale: DAY});
});
