import {mkdir, readdir, rm, writeFile} from 'node:fs/promises';
import {delimiter, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {Scope} from './scope.ts';

const PROJECT = fileURLToPath(new URL('..', import.meta.url));

/**
 * This process's environment without what npm, backref and Node read from it.
 * @param node the folder of the `node` that programs find first.
 */
export function cleanEnvironment(node: string): Record<string, string> {
  const kept = Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined || /^(npm_|BACKREF_|NODE_(?!EXTRA_CA_CERTS))/.test(name)
      ? []
      : [[name, value] as const],
  );
  const path = [node, process.env['PATH']].join(delimiter);
  // npm's cache has what the project's `npm ci` downloaded.
  return {...Object.fromEntries(kept), PATH: path, npm_config_prefer_offline: 'true'};
}

/**
 * Installs the npm package `node` into a folder of the scope.
 * @param range of its version: `22.21.x`
 * @returns the folder of the executable.
 * @throws Error with what npm printed.
 */
export async function installNode(scope: Scope, range: string): Promise<string> {
  const folder = join(scope.folder, `node-${range}`);
  await mkdir(folder);
  // This package's install script downloads the executable; npm 11 and later ask for permission.
  await writeFile(join(folder, 'package.json'), JSON.stringify({private: true, allowScripts: {node: true}}));
  const env = cleanEnvironment(join(PROJECT, 'node_modules/.bin'));
  await scope.run('npm', ['install', '--loglevel=error', `node@${range}`], {
    cwd: folder,
    env,
    timeout: 5 * 60_000,
  });
  return join(folder, 'node_modules/node/bin');
}

/**
 * Packs this project as `npm publish` would, from a checkout that has never been built. Gives the tarball's path.
 * @throws Error with what npm printed.
 */
export async function packProject(scope: Scope): Promise<string> {
  const folder = join(scope.folder, 'packed');
  await mkdir(folder);
  await rm(join(PROJECT, 'dist'), {recursive: true, force: true});
  const env = cleanEnvironment(join(PROJECT, 'node_modules/.bin'));
  await scope.run('npm', ['pack', '--pack-destination', folder], {cwd: PROJECT, env, timeout: 5 * 60_000});
  const [tarball] = await readdir(folder);
  if (tarball === undefined) throw new Error('npm pack made no file');
  return join(folder, tarball);
}
