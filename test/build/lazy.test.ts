import {createRequire} from 'node:module';
import {resolve} from 'node:path';
import {Script} from 'node:vm';
import test from 'ava';
import {build} from 'esbuild';
import {isFile, LIST_FORMAT, lazyPackages} from '../../build/lazy.ts';

const PROJECT = resolve(import.meta.dirname, '../..');

/** Bundles a module as the package is bundled. */
async function bundle(contents: string) {
  const {outputFiles, metafile} = await build({
    absWorkingDir: PROJECT,
    stdin: {contents, resolveDir: PROJECT},
    ...{bundle: true, platform: 'node', format: 'cjs', write: false, metafile: true},
    plugins: [lazyPackages(PROJECT)],
    define: LIST_FORMAT.define,
    banner: {js: LIST_FORMAT.statement},
  });
  const text = outputFiles?.[0]?.text ?? '';
  return {text, inputs: Object.keys(metafile?.inputs ?? {})};
}

function run(text: string): Record<string, (...args: unknown[]) => unknown> {
  const module = {exports: {}};
  const wrapped = new Script(`(function (module, exports, require) {${text}\n})`).runInThisContext();
  wrapped(module, module.exports, createRequire(import.meta.url));
  return module.exports;
}

test('a package that hardly a start needs is run when one of its functions is called', async (t) => {
  const {text} = await bundle(`
    import {getDomain} from 'tldts';
    export const domain = (name) => getDomain(name);
  `);
  let isRun = false;
  Object.assign(globalThis, {packageIsRun: () => (isRun = true)});
  // The first statement of the package, behind the name that esbuild gives it.
  const marked = text.replace(/"node_modules\/tldts\/[^"]*"\(exports\d*\) \{/, '$&packageIsRun();');
  t.not(marked, text);
  const {domain} = run(marked);
  t.false(isRun);
  t.is(domain?.('auth.registry.example.co.uk'), 'example.co.uk');
  t.true(isRun);
});

test('each version of a package is its own', async (t) => {
  const {text, inputs} = await bundle(`
    export const koa = (type) => require('mime-types').contentType(type);
    export const type = (name) => require('accepts')({headers: {accept: 'text/html'}}).type(name);
  `);
  const {koa, type} = run(text);
  t.is(koa?.('json'), 'application/json; charset=utf-8');
  t.is(type?.(['html']), 'html');
  const versions = inputs.filter((input) => isFile(input) && input.endsWith('mime-types/index.js')).sort();
  t.deepEqual(versions, [
    'node_modules/accepts/node_modules/mime-types/index.js',
    'node_modules/mime-types/index.js',
  ]);
});

test('got reads no language data until it has to list names', async (t) => {
  const {text} = await bundle(`
    exports.client = () => require('got').default;
    const names = new Intl.ListFormat('en', {type: 'conjunction'});
    exports.list = (...listed) => names.format(listed);
  `);
  const {ListFormat} = Intl;
  t.teardown(() => Object.assign(Intl, {ListFormat}));
  let made = 0;
  const counted = class extends ListFormat {
    constructor(...options: ConstructorParameters<typeof ListFormat>) {
      super(...options);
      made += 1;
    }
  };
  Object.assign(Intl, {ListFormat: counted});
  const {client, list} = run(text);
  t.is(typeof client?.(), 'function');
  t.is(made, 0);
  t.is(list?.('a', 'b', 'c'), 'a, b, and c');
  t.is(made, 1);
});
