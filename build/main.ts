import {execFile} from 'node:child_process';
import {mkdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import {promisify} from 'node:util';
import {type BuildOptions, build, transform} from 'esbuild';
import {runCompiled} from '../src/cli/compiled.ts';
import {isFile, LIST_FORMAT, lazyPackages} from './lazy.ts';
import {licencesOf} from './licences.ts';

const PROJECT = resolve(import.meta.dirname, '..');
const DIST = join(PROJECT, 'dist');
const TSC = join(PROJECT, 'node_modules/typescript/bin/tsc');
const {dependencies} = JSON.parse(await readFile(join(PROJECT, 'package.json'), 'utf8'));

const SHARED = {
  absWorkingDir: PROJECT,
  bundle: true,
  platform: 'node',
  target: 'node22.21',
  // Those with a part for each platform, which npm chooses when the package is installed. All others go into the bundle.
  external: Object.keys(dependencies),
  logLevel: 'warning',
} satisfies BuildOptions;

/**
 * Everything in one script: a thousand files take longer to find than to run. What only some commands need stays
 * behind an `import()`, and is evaluated by it. A script and not a
 * module, because V8 gives the compiled code only of scripts.
 */
async function buildBundle(): Promise<void> {
  const {outputFiles, metafile} = await build({
    ...SHARED,
    stdin: {
      contents: `
        export const program = () => import('./src/cli/program.ts');
        export const library = () => require('./src/index.ts');
      `,
      resolveDir: PROJECT,
    },
    plugins: [lazyPackages(PROJECT)],
    format: 'cjs',
    // The script is run without a loader that could answer an import().
    supported: {'dynamic-import': false},
    define: {'import.meta.url': 'URL_OF_BUNDLE', ...LIST_FORMAT.define},
    // What node would put around a CommonJS module: runCompiled() calls the function.
    banner: {
      js: `(function (exports, require, module, __filename, __dirname) {
        const URL_OF_BUNDLE = require('node:url').pathToFileURL(__filename).href;
        ${LIST_FORMAT.statement}`,
    },
    footer: {js: '})'},
    write: false,
    metafile: true,
  });
  const [bundle] = outputFiles;
  if (!bundle) throw new Error('esbuild made no file');
  await writeFile(join(DIST, 'backref.cjs'), await withoutComments(bundle.text));
  await writeFile(
    join(DIST, 'LICENCES.txt'),
    await licencesOf(Object.keys(metafile.inputs).filter(isFile), PROJECT),
  );
}

/**
 * Comments are a third of the text, which V8 keeps in memory: in two bytes a character if a single one is not ASCII, as
 * only comments have them. esbuild leaves them out together with the lines, and then makes lines anew.
 */
async function withoutComments(script: string): Promise<string> {
  const {code} = await transform(script, {minifyWhitespace: true, legalComments: 'none'});
  return (await transform(code)).code;
}

/** The start of the command, the thread that commits and the workers: modules, as the package says of `.js`. */
const buildModules = () =>
  build({
    ...SHARED,
    entryPoints: {
      'cli/main': join(PROJECT, 'src/cli/published.ts'),
      compiled: join(PROJECT, 'src/cli/compiled.ts'),
      'writer-thread': join(PROJECT, 'src/storage/sqlite/writer-thread.ts'),
      'worker-thread': join(PROJECT, 'src/workers/worker-thread.ts'),
    },
    outdir: DIST,
    format: 'esm',
  });

/** The names that the library exports, each as an export of a module. */
async function writeLibrary(): Promise<void> {
  const start = `import {fileURLToPath} from 'node:url';
import {runCompiled} from './compiled.js';

const {exports: bundle} = runCompiled(fileURLToPath(new URL('./backref.cjs', import.meta.url)), undefined);
`;
  const {exports: bundle} = runCompiled(join(DIST, 'backref.cjs'), undefined);
  const names = Object.keys((bundle as {library(): object}).library());
  await writeFile(
    join(DIST, 'index.js'),
    `${start}\nexport const {\n  ${names.join(',\n  ')},\n} = bundle.library();\n`,
  );
}

await rm(DIST, {recursive: true, force: true});
await mkdir(DIST);
const declarations = promisify(execFile)(process.execPath, [TSC, '-p', join(PROJECT, 'tsconfig.build.json')]);
await Promise.all([declarations, buildBundle(), buildModules()]);
await writeLibrary();
