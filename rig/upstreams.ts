import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {ownPort} from './port.ts';
import {answers, ready, type Scope, type Started} from './scope.ts';
import type {Tool, Toolbox} from './tools.ts';

/** The registries that represent real upstreams. The first two have no Referrers API, olareg has it. */
export const UPSTREAM_TOOLS = {
  'docker-registry': 'docker-registry',
  distribution: 'registry',
  olareg: 'olareg',
} as const satisfies Record<string, Tool>;
export type UpstreamName = keyof typeof UPSTREAM_TOOLS;

export interface RunningRegistry {
  url: string;
  process: Started;
}

export interface UpstreamOptions {
  /** Makes it a mirror of this URL; not olareg, which cannot be one. */
  mirrorOf?: string;
  /** The path of the file of those who may log in; nobody else may do anything. Not for olareg. */
  htpasswd?: string;
  /** The command to run it under, e.g. `taskset`. */
  prefix?: readonly string[];
}

/**
 * Starts a registry on a port of 127.0.0.1, empty, with its files in the scope's folder.
 * @throws Error with its output when it does not get ready.
 */
export async function startRegistry(
  scope: Scope,
  tools: Toolbox,
  name: UpstreamName,
  {mirrorOf, htpasswd, prefix = []}: UpstreamOptions = {},
): Promise<RunningRegistry> {
  const port = await ownPort();
  const url = `http://127.0.0.1:${port}`;
  const folder = join(scope.folder, `${name}-${port}`);
  const args =
    name === 'olareg' ? olaregArgs(folder, port) : await distributionArgs(folder, port, {mirrorOf, htpasswd});
  const [command = '', ...rest] = [...prefix, tools.path(UPSTREAM_TOOLS[name]), 'serve', ...args];
  // No exporter and no tracing: distribution 3 looks for a collector on its own.
  const process_ = scope.start(command, rest, {env: {...process.env, OTEL_TRACES_EXPORTER: 'none'}});
  await ready(process_, name, answers(`${url}/v2/`, htpasswd === undefined ? 200 : 401));
  return {url, process: process_};
}

/** With all of its features enabled. */
const olaregArgs = (folder: string, port: number): string[] => [
  ...['--addr', '127.0.0.1', '--port', String(port), '--dir', folder],
  ...['--api-delete', '--api-blob-delete', '--api-sparse-image', '--api-sparse-index'],
];

/** A configuration file for either generation of distribution. */
async function distributionArgs(
  folder: string,
  port: number,
  {mirrorOf, htpasswd}: Record<'mirrorOf' | 'htpasswd', string | undefined>,
): Promise<string[]> {
  const file = `${folder}.yml`;
  // JSON is YAML.
  const config = {
    version: 0.1,
    log: {level: 'error', accesslog: {disabled: true}},
    storage: {filesystem: {rootdirectory: folder}, delete: {enabled: true}},
    http: {addr: `127.0.0.1:${port}`},
    ...(htpasswd ? {auth: {htpasswd: {realm: 'registry', path: htpasswd}}} : {}),
    ...(mirrorOf ? {proxy: {remoteurl: mirrorOf}} : {}),
  };
  await writeFile(file, JSON.stringify(config));
  return [file];
}
