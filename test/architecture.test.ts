import {readFile} from 'node:fs/promises';
import test from 'ava';
import {plantedCopy, runTool} from './support/planted.ts';
import {type Lifetime, shareAmongTests} from './support/shared.ts';

const RESTRICTED = 'lint/style/noRestrictedImports';
const CYCLE = 'lint/suspicious/noImportCycles';

/** Folder by folder, imports that each break the one direction in which imports may point. */
const FORBIDDEN: Record<string, string[]> = {
  'src/': [
    './server.ts',
    './artifacts.ts',
    './artifact/list.ts',
    './registry/blobs.ts',
    './http/app.ts',
    './storage/metadata.ts',
    'koa',
  ],
  'src/oci/': ['../clock.ts', '../events.ts', '../config.ts', '../registry/blobs.ts', 'koa', 'got'],
  'src/registry/': [
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
  'src/registry/fill/': [
    '../../http/app.ts',
    '../../upstream/client.ts',
    '../../storage/fs/spools.ts',
    'got',
  ],
  'src/http/': [
    '../server.ts',
    '../config.ts',
    '../upstream/port.ts',
    '../storage/metadata.ts',
    '../storage/fs/blob-store.ts',
    'got',
    'kysely',
  ],
  'src/admin/': [
    '../cli/main.ts',
    '../http/app.ts',
    '../server.ts',
    '../config.ts',
    '../upstream/client.ts',
    '../storage/metadata.ts',
    'koa',
    'got',
    'kysely',
  ],
  'src/artifact/': [
    '../artifacts.ts',
    '../layout/layout.ts',
    '../registry/blobs.ts',
    '../upstream/client.ts',
    '../storage/sqlite/metadata.ts',
    'got',
  ],
  'src/layout/': ['../artifact/attach.ts', '../upstream/port.ts', '../registry/blobs.ts', '../server.ts'],
  'src/upstream/': [
    '../registry/blobs.ts',
    '../storage/metadata.ts',
    '../http/app.ts',
    '../server.ts',
    'koa',
  ],
  'src/storage/': ['../registry/blobs.ts', './fs/blob-store.ts', './sqlite/metadata.ts', 'node:sqlite'],
  'src/storage/fs/': [
    '../../registry/blobs.ts',
    '../../config.ts',
    '../sqlite/metadata.ts',
    'node:sqlite',
    'kysely',
  ],
  'src/storage/sqlite/': [
    '../../registry/blobs.ts',
    '../../http/app.ts',
    '../fs/blob-store.ts',
    'koa',
    'got',
  ],
  'src/storage/sql/': ['../../registry/blobs.ts', '../sqlite/metadata.ts', '../../server.ts', 'got'],
  'src/observe/': ['../registry/blobs.ts', '../http/app.ts', '../server.ts', '../upstream/client.ts', 'koa'],
  'src/config/': ['../server.ts', '../oci/name.ts', '../registry/namespace.ts', 'koa'],
  'src/cli/': [
    '../http/app.ts',
    '../layout/layout.ts',
    '../registry/blobs.ts',
    '../storage/metadata.ts',
    '../upstream/port.ts',
    'koa',
  ],
};

/** The other ways in which one module may name another. */
const SPELLINGS: Record<string, string> = {
  'src/registry/planted-type.ts': "import type {App} from '../http/app.ts';\nexport type Planted = App;\n",
  'src/registry/planted-export.ts': "export {createApp} from '../http/app.ts';\n",
  'src/registry/planted-dynamic.ts': "export const planted = () => import('../http/app.ts');\n",
  'src/registry/planted-detour.ts': "import '../oci/../http/app.ts';\n",
};

const CYCLES: Record<string, string> = {
  'src/oci/planted-egg.ts': "import {hen} from './planted-hen.ts';\nexport const egg = (): unknown => hen;\n",
  'src/oci/planted-hen.ts': "import {egg} from './planted-egg.ts';\nexport const hen = (): unknown => egg;\n",
};

/** What src/server.ts must not know. */
const FORBIDDEN_TO_THE_SERVER = ['./cli/main.ts', 'koa', 'got', 'kysely', 'node:sqlite'];

interface Finding {
  level: string;
  rule: string;
  file: string;
}

/** What the check finds against these rules in the sources, with further files among them or in their place. */
async function findings(t: Lifetime, planted: Record<string, string>) {
  const copy = await plantedCopy(t, ['src'], planted);
  const {code, output} = await runTool(copy, 'biome', [
    'check',
    '--reporter=github',
    '--max-diagnostics=none',
    'src',
  ]);
  const found = output
    .matchAll(/^::(?<level>\w+) title=(?<rule>[^,]+),file=(?<file>[^,]+),/gm)
    .map(
      ({groups}): Finding => ({
        level: groups?.['level'] ?? '',
        rule: groups?.['rule'] ?? '',
        file: groups?.['file'] ?? '',
      }),
    )
    .map(({file, ...rest}) => ({...rest, file: file.slice(file.lastIndexOf('src/'))}))
    .filter(({rule}) => rule === RESTRICTED || rule === CYCLE)
    .toArray();
  return {code, found};
}

const forbidden = Object.fromEntries(
  Object.entries(FORBIDDEN).flatMap(([folder, specifiers]) =>
    specifiers.map((specifier, index) => [`${folder}planted-${index}.ts`, `import '${specifier}';\n`]),
  ),
);

/** What one check says of all faults, each of which lies in files of its own. */
const faults = shareAmongTests(test, async (lifetime) => {
  const server = await readFile('src/server.ts', 'utf8');
  const imports = FORBIDDEN_TO_THE_SERVER.map((specifier) => `import '${specifier}';\n`).join('');
  const planted = {...forbidden, ...SPELLINGS, ...CYCLES, 'src/server.ts': imports + server};
  const {code, found} = await findings(lifetime, planted);
  // An error is what makes the check fail.
  return {code, errors: found.filter(({level}) => level === 'error')};
});

const isFound = (found: readonly Finding[], rule: string, file: string): boolean =>
  found.some((finding) => finding.rule === rule && finding.file === file);

test('the sources keep every import rule and hold no cycle', async (t) => {
  t.deepEqual((await findings(t, {})).found, []);
});

test('every import against the direction fails the check, whatever its spelling', async (t) => {
  const {code, errors} = await faults();
  t.not(code, 0);
  for (const [file, text] of Object.entries({...forbidden, ...SPELLINGS}))
    t.true(isFound(errors, RESTRICTED, file), `${file}: ${text}`);
});

test('the server knows neither the command line nor the packages of its parts', async (t) => {
  const {code, errors} = await faults();
  t.not(code, 0);
  const restricted = errors.filter(({rule, file}) => rule === RESTRICTED && file === 'src/server.ts');
  t.is(restricted.length, FORBIDDEN_TO_THE_SERVER.length);
});

test('a cycle fails the check', async (t) => {
  const {code, errors} = await faults();
  t.not(code, 0);
  for (const file of Object.keys(CYCLES)) t.true(isFound(errors, CYCLE, file), file);
});
