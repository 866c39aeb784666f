import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {cp, mkdir, symlink, writeFile} from 'node:fs/promises';
import {dirname, join, resolve} from 'node:path';
import {createFolder} from './folder.ts';
import type {Lifetime} from './shared.ts';

const PROJECT = resolve(import.meta.dirname, '../..');
/** The settings of the parts of `npm run check`. */
const SETTINGS = ['.gitignore', 'biome.json', 'knip.json', 'package.json', 'tsconfig.json'];
/** All sources that they read. */
export const SOURCES = ['src', 'test', 'demo', 'interop', 'conformance', 'installation', 'bench', 'rig'];

/**
 * A copy of the project that is removed with the test: all settings, of the sources those below `sources`, and further
 * files, which may take the place of a source.
 */
export async function plantedCopy(
  t: Lifetime,
  sources: readonly string[],
  planted: Record<string, string>,
): Promise<string> {
  const copy = await createFolder(t);
  for (const name of [...SETTINGS, ...sources])
    await cp(join(PROJECT, name), join(copy, name), {recursive: true});
  await symlink(join(PROJECT, 'node_modules'), join(copy, 'node_modules'));
  for (const [path, text] of Object.entries(planted)) {
    await mkdir(dirname(join(copy, path)), {recursive: true});
    await writeFile(join(copy, path), text);
  }
  return copy;
}

/** Runs a tool of node_modules/.bin in a folder. Gives its exit code and everything that it printed. */
export async function runTool(cwd: string, tool: string, args: readonly string[]) {
  const child = spawn(join(cwd, 'node_modules/.bin', tool), args, {
    cwd,
    env: {...process.env, FORCE_COLOR: '0'},
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  const [code] = await once(child, 'close');
  return {code: code as number | null, output};
}
