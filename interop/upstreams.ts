import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {answers, freePort, ready, type Scope, type Started} from './scope.ts';
import type {Tool, Toolbox} from './tools.ts';

/** The two registries that stand for the upstreams of the world. */
export const UPSTREAMS = [
  {name: 'docker-registry', tool: 'docker-registry'},
  {name: 'distribution', tool: 'registry'},
] as const satisfies readonly {name: string; tool: Tool}[];
export type UpstreamName = (typeof UPSTREAMS)[number]['name'];

export interface RunningRegistry {
  url: string;
  process: Started;
}

export interface RegistryOptions {
  /** Makes it a mirror of this URL. */
  mirrorOf?: string;
  /** What to run it under, as `taskset`. */
  prefix?: readonly string[];
}

/**
 * Starts one of the two registries on a port of 127.0.0.1, empty, with its files in the scope's folder.
 * @throws Error with its output when it does not get ready.
 */
export async function startRegistry(
  scope: Scope,
  tools: Toolbox,
  name: UpstreamName,
  {mirrorOf, prefix = []}: RegistryOptions = {},
): Promise<RunningRegistry> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const file = join(scope.folder, `${name}-${port}.yml`);
  // JSON is YAML.
  const config = {
    version: 0.1,
    log: {level: 'error', accesslog: {disabled: true}},
    storage: {filesystem: {rootdirectory: join(scope.folder, `${name}-${port}`)}, delete: {enabled: true}},
    http: {addr: `127.0.0.1:${port}`},
    ...(mirrorOf ? {proxy: {remoteurl: mirrorOf}} : {}),
  };
  await writeFile(file, JSON.stringify(config));
  const tool: Tool = name === 'distribution' ? 'registry' : name;
  const [command = '', ...args] = [...prefix, tools.path(tool), 'serve', file];
  // No exporter and no tracing: distribution 3 looks for a collector on its own.
  const process_ = scope.start(command, args, {env: {...process.env, OTEL_TRACES_EXPORTER: 'none'}});
  await ready(process_, name, answers(`${url}/v2/`));
  return {url, process: process_};
}
