import {relative} from 'node:path';
import type {Plugin} from 'esbuild';

/**
 * Packages that take long to run and that hardly a start needs, with the functions that are called of them. The first call
 * runs the package.
 */
const LAZY: Readonly<Record<string, readonly string[]>> = {
  // The list of public suffixes: for token services outside of their registry's host.
  tldts: ['getDomain'],
  // The database of media types, in two versions: Koa loads it, and nothing here asks for the type of a file.
  'mime-types': ['contentType', 'lookup'],
  // HTTP/2, with node's own module for it: got loads it, and nothing here asks for HTTP/2.
  'http2-wrapper': ['auto'],
};

/**
 * What a bundle puts in place of `Intl.ListFormat`, and the statement that defines it: a package of got makes two for its
 * messages when it is run, and the first of them reads 4.5 MiB of the data of languages. This one is made when it is first used.
 */
export const LIST_FORMAT = {
  define: {'Intl.ListFormat': 'LazyListFormat'},
  statement: `const LazyListFormat = class {
    #options;
    constructor(...options) { this.#options = options; }
    format(list) { return new Intl.ListFormat(...this.#options).format(list); }
  };`,
};

const NAMESPACE = 'lazy';

/** Whether an input of a bundle is a file, and not a module that was put in place of a package. */
export const isFile = (input: string): boolean => !input.startsWith(`${NAMESPACE}:`);

/** Puts a module in place of each of these packages that runs the package when one of its functions is called. */
export const lazyPackages = (project: string): Plugin => ({
  name: 'lazy packages',
  setup({onResolve, onLoad, resolve}) {
    const filter = new RegExp(`^(${Object.keys(LAZY).join('|')})$`);
    onResolve({filter}, async ({path: name, resolveDir, pluginData}) => {
      if (pluginData === NAMESPACE) return undefined;
      // Its own file, since there may be several versions.
      const found = await resolve(name, {kind: 'require-call', resolveDir, pluginData: NAMESPACE});
      return {path: relative(project, found.path), namespace: NAMESPACE, pluginData: name};
    });
    onLoad({filter: /./, namespace: NAMESPACE}, ({path, pluginData: name}) => {
      const wrapped = (LAZY[name] ?? []).map(
        (each) => `exports.${each} = (...args) => require(${JSON.stringify(`./${path}`)}).${each}(...args);`,
      );
      return {contents: wrapped.join('\n'), resolveDir: project};
    });
  },
});
