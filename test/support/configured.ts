import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {ExecutionContext} from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {createFolder} from './folder.ts';

/**
 * A folder with a configuration file, for a server on a free port of 127.0.0.1 with its data below the same folder.
 * @param settings the rest of the file, as YAML
 */
export async function configured(
  t: ExecutionContext,
  settings: string,
): Promise<{cwd: string; file: string; data: string}> {
  const cwd = await createFolder(t);
  const [file, data] = [join(cwd, 'f.yaml'), join(cwd, 'data')];
  await writeFile(file, `listen: {host: 127.0.0.1, port: 0}\nstorage: {path: ${data}}\n${settings}\n`);
  return {cwd, file, data};
}

/** A server in this process, on what a configuration file names. It ends with the test. */
export async function serveFile(t: ExecutionContext, file: string) {
  const server = createServer(await loadConfig({file, env: {}}), {env: {}});
  t.teardown(() => server.close());
  const {url} = await server.listen();
  return {server, url};
}

/** The result in the last line of JSON that a command printed. */
export const resultIn = (stdout: string) => JSON.parse(stdout.trim().split('\n').at(-1) ?? '').result;
