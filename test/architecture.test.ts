import {readFile} from 'node:fs/promises';
import {resolve} from 'node:path';
import test from 'ava';
import ts from 'typescript';
import {plantedCopy, runTool} from './support/planted.ts';

const PORTS = [
  'src/storage/backup-folder.ts',
  'src/storage/blob-files.ts',
  'src/storage/blob-store.ts',
  'src/storage/coordination.ts',
  'src/storage/disk.ts',
  'src/storage/metadata.ts',
  'src/storage/spool.ts',
  'src/upstream/port.ts',
];
/** The folders of registry/, lowest first: each may import the shared files beside them, and those before it. */
const NOUNS = ['pull', 'blobs', 'tags', 'manifests', 'referrers', 'fallback-tag', 'push', 'maintenance'];
const REGISTRY = ['src/registry/', ...NOUNS.map((noun) => `src/registry/${noun}/`)];
const VOCABULARY = [
  'src/oci/',
  'src/caller.ts',
  'src/caller-glob.ts',
  'src/clock.ts',
  'src/concurrency.ts',
  'src/error-code.ts',
  'src/events.ts',
  'src/lru.ts',
  'src/own-login.ts',
];

interface Rule {
  /** What it may import besides its own files: single files, and whatever another rule of this table is about. */
  imports: string[];
  /** Packages besides Node's built-in modules; `node:sqlite` counts as a package. */
  packages?: string[];
}

/** Who may import what. Of the keys that a file's path starts with, the longest is its rule. What no rule allows is forbidden. */
const RULES: Record<string, Rule> = {
  'src/oci/': {imports: [], packages: ['picomatch']},
  'src/': {imports: ['src/oci/', 'src/upstream/port.ts']},
  'src/lru.ts': {imports: [], packages: ['lru-cache']},
  'src/config/': {
    imports: [
      'src/address.ts',
      'src/caller-glob.ts',
      'src/config.ts',
      'src/error-code.ts',
      'src/identity/htpasswd.ts',
      'src/identity/signing-keys.ts',
      'src/key-pair.ts',
      'src/unix-socket.ts',
      'src/oci/image-glob.ts',
      'src/oci/json.ts',
    ],
    packages: ['fastest-levenshtein', 'yaml', 'zod'],
  },
  'src/storage/': {imports: ['src/oci/', 'src/clock.ts', 'src/events.ts']},
  'src/storage/open.ts': {imports: ['src/', 'src/storage/', 'src/storage/fs/', 'src/storage/sqlite/']},
  'src/storage/open-files.ts': {imports: ['src/storage/', 'src/storage/fs/', 'src/clock.ts']},
  'src/storage/fs/': {
    imports: [
      'src/storage/backup-folder.ts',
      'src/storage/blob-files.ts',
      'src/storage/blob-store.ts',
      'src/storage/disk.ts',
      'src/storage/spool.ts',
      'src/oci/',
      'src/clock.ts',
      'src/error-code.ts',
    ],
  },
  'src/storage/sql/': {imports: ['src/storage/metadata.ts', 'src/lru.ts', 'src/oci/'], packages: ['kysely']},
  'src/storage/sqlite/': {
    imports: [
      'src/storage/disk.ts',
      'src/storage/metadata.ts',
      'src/storage/folder-lock.ts',
      'src/storage/sql/',
      'src/error-code.ts',
    ],
    packages: ['kysely', 'node:sqlite'],
  },
  'src/upstream/': {
    imports: [
      ...VOCABULARY,
      'src/config.ts',
      'src/upstream/auth/',
      'src/upstream/transport/',
      'src/upstream/verbs/',
    ],
    packages: [],
  },
  'src/upstream/transport/': {
    imports: [...VOCABULARY, 'src/config.ts', 'src/upstream/port.ts'],
    packages: ['got', 'tldts', 'zod'],
  },
  'src/upstream/auth/': {
    imports: [...VOCABULARY, 'src/config.ts', 'src/upstream/port.ts', 'src/upstream/transport/'],
    packages: ['tldts', 'zod'],
  },
  'src/upstream/verbs/': {
    imports: [
      ...VOCABULARY,
      'src/upstream/port.ts',
      'src/upstream/api-request.ts',
      'src/upstream/transport/',
    ],
    packages: ['http-link-header', 'zod'],
  },
  'src/registry/': {imports: [...VOCABULARY, ...PORTS], packages: ['lru-cache']},
  ...Object.fromEntries(
    REGISTRY.slice(1).map((folder, index) => [
      folder,
      {imports: [...VOCABULARY, ...PORTS, ...REGISTRY.slice(0, index + 1)], packages: ['lru-cache']},
    ]),
  ),
  'src/artifact/': {
    imports: [
      ...VOCABULARY,
      ...PORTS,
      // How a fallback tag is read and written is the same for a server and for the library.
      'src/registry/fallback-tag/write-protocol.ts',
      'src/registry/referrers/fallback-tag.ts',
    ],
  },
  'src/layout/': {
    imports: [
      'src/oci/',
      'src/clock.ts',
      'src/error-code.ts',
      'src/artifact/target.ts',
      'src/artifact/list.ts',
    ],
  },
  'src/identity/': {
    imports: [...VOCABULARY, 'src/config.ts', 'src/storage/metadata.ts'],
    packages: ['@node-rs/bcrypt', 'jose'],
  },
  'src/http/': {
    imports: [
      ...VOCABULARY,
      'src/address.ts',
      'src/key-pair.ts',
      'src/unix-socket.ts',
      ...REGISTRY,
      'src/identity/',
      'src/storage/blob-files.ts',
    ],
    packages: ['koa', '@koa/router', 'lru-cache', 'range-parser', 'structured-headers'],
  },
  // A worker answers what is prepared: it knows neither verbs nor stores, and reads the files that the owner names.
  'src/workers/': {
    imports: [
      'src/clock.ts',
      'src/error-code.ts',
      'src/events.ts',
      'src/address.ts',
      'src/http/',
      'src/storage/open-files.ts',
    ],
  },
  'src/admin/': {imports: [...VOCABULARY, ...REGISTRY, 'src/identity/robots.ts', 'src/unix-socket.ts']},
  'src/observe/': {
    imports: ['src/clock.ts', 'src/config.ts', 'src/events.ts'],
    packages: ['pino', 'pino-pretty', 'prom-client', 'rotating-file-stream'],
  },
  'src/listeners.ts': {imports: ['src/', 'src/http/']},
  'src/current-registries.ts': {imports: ['src/', ...REGISTRY, 'src/upstream/']},
  'src/access-check.ts': {imports: ['src/', 'src/current-registries.ts', ...REGISTRY]},
  'src/wire.ts': {
    imports: [
      'src/',
      'src/http/',
      ...REGISTRY,
      'src/storage/open.ts',
      'src/wire-cache-commands.ts',
      'src/wire-content.ts',
      'src/wire-identity.ts',
      'src/wire-maintenance.ts',
      'src/wire-outage.ts',
    ],
  },
  'src/wire-cache-commands.ts': {imports: ['src/', ...REGISTRY, 'src/storage/open.ts']},
  'src/wire-content.ts': {imports: ['src/', ...REGISTRY, 'src/storage/open.ts']},
  'src/wire-identity.ts': {
    imports: ['src/', 'src/http/', 'src/identity/', 'src/storage/metadata.ts'],
  },
  'src/wire-maintenance.ts': {
    imports: ['src/', 'src/observe/metrics.ts', ...REGISTRY, 'src/storage/open.ts'],
  },
  'src/wire-outage.ts': {imports: ['src/', ...REGISTRY, 'src/storage/open.ts']},
  'src/wire-workers.ts': {
    imports: [
      'src/',
      'src/listeners.ts',
      'src/http/',
      'src/registry/generations.ts',
      'src/storage/open.ts',
      'src/workers/',
    ],
  },
  'src/background-work.ts': {imports: ['src/', 'src/wire.ts', 'src/http/app.ts', 'src/storage/open.ts']},
  'src/server.ts': {
    imports: [
      'src/',
      'src/background-work.ts',
      'src/wire-workers.ts',
      'src/current-registries.ts',
      'src/listeners.ts',
      'src/wire.ts',
      'src/admin/',
      'src/http/',
      'src/identity/',
      'src/registry/access-policy.ts',
      'src/registry/generations.ts',
      'src/registry/memory.ts',
      'src/storage/',
      'src/storage/open.ts',
    ],
  },
  'src/library.ts': {
    imports: [
      'src/',
      'src/wire.ts',
      'src/admin/',
      'src/artifact/',
      'src/layout/',
      'src/oci/',
      'src/registry/maintenance/',
      'src/storage/',
      'src/storage/open.ts',
      'src/upstream/',
    ],
  },
  'src/index.ts': {
    imports: [
      'src/',
      'src/listeners.ts',
      'src/current-registries.ts',
      'src/server.ts',
      'src/library.ts',
      'src/artifact/',
      'src/config/',
      'src/oci/',
      'src/upstream/port.ts',
    ],
  },
  'src/cli/': {
    imports: [
      'src/',
      'src/access-check.ts',
      'src/listeners.ts',
      'src/server.ts',
      'src/library.ts',
      'src/admin/',
      'src/artifact/',
      'src/config/',
      'src/observe/',
      'src/oci/',
    ],
    packages: ['commander'],
  },
};

/** The key of the rule that a file falls under. */
const ruleOf = (file: string): string =>
  Object.keys(RULES)
    .filter((key) => file.startsWith(key))
    .reduce((longest, key) => (key.length > longest.length ? key : longest), '');

const PROJECT = resolve(import.meta.dirname, '..');
const {options} = ts.parseJsonConfigFileContent(
  ts.readConfigFile(resolve(PROJECT, 'tsconfig.json'), ts.sys.readFile).config,
  ts.sys,
  PROJECT,
);

/** The path of the source that an import leads to, relative to the project; undefined for a package. */
function resolved(specifier: string, file: string): string | undefined {
  if (!/^[./]/.test(specifier)) return undefined;
  const {resolvedModule} = ts.resolveModuleName(specifier, resolve(PROJECT, file), options, ts.sys);
  return resolvedModule?.resolvedFileName.slice(PROJECT.length + 1) ?? `unresolved ${specifier}`;
}

const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');

function isAllowed(specifier: string, file: string): boolean {
  const rule = ruleOf(file);
  const {imports = [], packages = []} = RULES[rule] ?? {};
  const target = resolved(specifier, file);
  if (target === undefined) {
    const builtIn = specifier.startsWith('node:') && specifier !== 'node:sqlite';
    return builtIn || packages.includes(packageOf(specifier));
  }
  return ruleOf(target) === rule || imports.includes(target) || imports.includes(ruleOf(target));
}

/** The imports of a file that its rule forbids, types and dynamic imports included. */
const violations = (file: string, text: string): string[] =>
  ts
    .preProcessFile(text, true, true)
    .importedFiles.filter(({fileName}) => !isAllowed(fileName, file))
    .map(({fileName}) => `${file} imports ${fileName}`);

const sources = ts.sys
  .readDirectory(resolve(PROJECT, 'src'), ['.ts'])
  .map((path) => path.slice(PROJECT.length + 1));

/** Imports that each break the one direction in which imports may point, by the file that would hold them. */
const FORBIDDEN: Record<string, string[]> = {
  'src/clock.ts': ['./server.ts', './artifact/list.ts', './http/app.ts', './storage/metadata.ts', 'koa'],
  'src/lru.ts': ['./clock.ts', './oci/digest.ts', 'koa'],
  'src/access-check.ts': ['./server.ts', './http/app.ts', './config/load.ts', './upstream/client.ts', 'got'],
  'src/wire-content.ts': ['./wire.ts', './http/app.ts', './storage/fs/blob-store.ts', 'got'],
  'src/workers/planted.ts': [
    '../registry/access.ts',
    '../identity/robots.ts',
    '../storage/open.ts',
    '../server.ts',
    'koa',
  ],
  'src/background-work.ts': ['./server.ts', './registry/access.ts', './storage/fs/blob-store.ts', 'koa'],
  'src/wire-workers.ts': [
    './server.ts',
    './wire.ts',
    './registry/access.ts',
    './storage/fs/blob-store.ts',
    'koa',
  ],
  'src/wire-outage.ts': ['./wire.ts', './http/app.ts', './storage/fs/blob-store.ts', 'got'],
  'src/wire.ts': [
    './server.ts',
    './admin/commands.ts',
    './cli/main.ts',
    './storage/fs/blob-store.ts',
    './storage/sqlite/metadata.ts',
    './upstream/client.ts',
    'got',
    'koa',
  ],
  'src/wire-cache-commands.ts': ['./wire.ts', './http/app.ts', './storage/fs/blob-store.ts', 'got'],
  'src/wire-identity.ts': ['./wire.ts', './registry/access.ts', './storage/open.ts', 'jose', 'koa'],
  'src/wire-maintenance.ts': ['./wire.ts', './http/app.ts', './storage/fs/blob-store.ts', 'got'],
  'src/server.ts': [
    './observe/log.ts',
    './cli/main.ts',
    './library.ts',
    './registry/blobs/blobs.ts',
    './storage/sqlite/metadata.ts',
    './upstream/client.ts',
    'koa',
    'got',
    'kysely',
    'node:sqlite',
  ],
  'src/library.ts': [
    './cli/main.ts',
    './server.ts',
    './http/app.ts',
    './storage/sqlite/metadata.ts',
    './storage/fs/spools.ts',
    'got',
  ],
  'src/index.ts': ['./cli/main.ts', './registry/blobs/blobs.ts', 'commander'],
  'src/oci/planted.ts': ['../clock.ts', '../config.ts', '../registry/blobs/blobs.ts', 'koa', 'got'],
  'src/registry/planted.ts': [
    './blobs/blobs.ts',
    '../http/app.ts',
    '../admin/commands.ts',
    '../server.ts',
    '../config.ts',
    '../upstream/client.ts',
    '../storage/fs/blob-store.ts',
    '../storage/sqlite/metadata.ts',
    '../observe/log.ts',
    'koa',
    '@koa/router',
    'got',
    'kysely',
    'node:sqlite',
  ],
  'src/registry/pull/planted.ts': [
    '../blobs/blobs.ts',
    '../../http/app.ts',
    '../../upstream/client.ts',
    'got',
  ],
  'src/registry/blobs/planted.ts': ['../tags/tags.ts', '../../storage/fs/spools.ts'],
  'src/registry/tags/planted.ts': ['../manifests/manifests.ts', '../../config.ts'],
  'src/registry/manifests/planted.ts': ['../referrers/lists.ts', 'kysely'],
  'src/registry/referrers/planted.ts': ['../fallback-tag/synthesize.ts', 'got'],
  'src/registry/fallback-tag/planted.ts': ['../push/local.ts', '../../server.ts'],
  'src/registry/push/planted.ts': ['../maintenance/garbage.ts', 'koa'],
  'src/registry/maintenance/planted.ts': ['../../admin/commands.ts', '../../observe/log.ts'],
  'src/http/planted.ts': [
    '../server.ts',
    '../config.ts',
    '../upstream/port.ts',
    '../storage/metadata.ts',
    'got',
  ],
  'src/identity/planted.ts': [
    '../registry/access-policy.ts',
    '../http/app.ts',
    '../upstream/client.ts',
    '../storage/sqlite/metadata.ts',
    'koa',
  ],
  'src/listeners.ts': ['./server.ts', './wire.ts', './config/load.ts', 'koa'],
  'src/current-registries.ts': ['./server.ts', './http/app.ts', './storage/metadata.ts', 'got'],
  'src/admin/planted.ts': [
    '../cli/main.ts',
    '../http/app.ts',
    '../config.ts',
    '../storage/metadata.ts',
    'koa',
  ],
  'src/artifact/planted.ts': [
    '../library.ts',
    '../layout/layout.ts',
    '../registry/blobs/blobs.ts',
    '../registry/fallback-tag/reconcile.ts',
    '../registry/referrers/lists.ts',
    'got',
  ],
  'src/layout/planted.ts': ['../artifact/attach.ts', '../upstream/port.ts', '../registry/blobs/blobs.ts'],
  'src/upstream/transport/planted.ts': ['../auth/token.ts', '../verbs/tags.ts', '../ask.ts', 'koa'],
  'src/upstream/auth/planted.ts': ['../verbs/tags.ts', '../ask.ts', 'got'],
  'src/upstream/verbs/planted.ts': ['../auth/token.ts', '../client.ts', 'got'],
  'src/upstream/planted.ts': [
    '../registry/blobs/blobs.ts',
    '../storage/metadata.ts',
    '../http/app.ts',
    'koa',
  ],
  'src/storage/planted.ts': [
    '../registry/blobs/blobs.ts',
    './fs/blob-store.ts',
    './sqlite/metadata.ts',
    'node:sqlite',
  ],
  'src/storage/open.ts': ['../server.ts', '../registry/blobs/blobs.ts', './sql/commit.ts', 'node:sqlite'],
  'src/storage/open-files.ts': [
    '../server.ts',
    '../registry/blobs/blobs.ts',
    './sqlite/metadata.ts',
    'kysely',
  ],
  'src/storage/fs/planted.ts': ['../../config.ts', '../sqlite/metadata.ts', 'node:sqlite', 'kysely'],
  'src/storage/sqlite/planted.ts': ['../../registry/blobs/blobs.ts', '../fs/blob-store.ts', 'koa', 'got'],
  'src/storage/sql/planted.ts': ['../../registry/blobs/blobs.ts', '../sqlite/metadata.ts', 'node:sqlite'],
  'src/observe/planted.ts': ['../registry/blobs/blobs.ts', '../http/app.ts', '../upstream/client.ts', 'koa'],
  'src/config/planted.ts': ['../server.ts', '../oci/name.ts', '../registry/namespace.ts', 'koa'],
  'src/cli/planted.ts': [
    '../http/app.ts',
    '../layout/layout.ts',
    '../registry/blobs/blobs.ts',
    '../upstream/port.ts',
  ],
};

test('every source keeps the import rules', async (t) => {
  const texts = await Promise.all(sources.map((file) => readFile(resolve(PROJECT, file), 'utf8')));
  t.deepEqual(
    sources.flatMap((file, index) => violations(file, texts[index] ?? '')),
    [],
  );
});

test('every rule is about sources that exist', (t) => {
  for (const key of Object.keys(RULES))
    t.true(
      sources.some((file) => ruleOf(file) === key),
      key,
    );
  for (const name of Object.values(RULES).flatMap(({imports}) => imports))
    t.true(name in RULES || sources.includes(name), name);
});

test('every rule can be broken, and every import against the direction is found', (t) => {
  const broken = new Set(Object.keys(FORBIDDEN).map(ruleOf));
  t.deepEqual([...broken].toSorted(), Object.keys(RULES).toSorted());
  for (const [file, specifiers] of Object.entries(FORBIDDEN))
    for (const specifier of specifiers)
      t.deepEqual(violations(file, `import '${specifier}';\n`), [`${file} imports ${specifier}`]);
});

/** The ways in which one module may name another. */
const SPELLINGS = [
  "import type {App} from '../http/app.ts';\nexport type Planted = App;\n",
  "export {createApp} from '../http/app.ts';\n",
  "export * from '../http/app.ts';\n",
  "export const planted = () => import('../http/app.ts');\n",
  "export type Planted = import('../http/app.ts').App;\n",
  "import '../oci/../http/app.ts';\n",
  "import '../http/planted-and-not-there.ts';\n",
];

for (const text of SPELLINGS)
  test(`a forbidden import is found in ${text.split('\n')[0]}`, (t) => {
    t.is(violations('src/registry/planted.ts', text).length, 1);
  });

const CYCLE: Record<string, string> = {
  'src/oci/planted-egg.ts': "import {hen} from './planted-hen.ts';\nexport const egg = (): unknown => hen;\n",
  'src/oci/planted-hen.ts': "import {egg} from './planted-egg.ts';\nexport const hen = (): unknown => egg;\n",
};

test('a cycle of imports fails the lint', async (t) => {
  const copy = await plantedCopy(t, ['src/oci'], CYCLE);
  const {code, output} = await runTool(copy, 'biome', ['check', '--reporter=github', 'src']);
  t.not(code, 0);
  for (const file of Object.keys(CYCLE)) t.regex(output, new RegExp(`noImportCycles,file=.*${file}`), file);
});
