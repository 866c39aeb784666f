import {mkdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {BUILT, SOURCES, startBackref} from '../rig/backref.ts';
import {ownPort} from '../rig/port.ts';
import {answers, ready, type Scope, type Started} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {startRegistry} from '../rig/upstreams.ts';
import type {Profiler} from './profile/capture.ts';

/** The pull-through mirrors that are compared, backref first. */
export const MIRRORS = ['backref', 'docker-registry', 'distribution', 'zot'] as const;
export type MirrorName = (typeof MIRRORS)[number];

/** Those that can be measured here. zot is not published as a Go module: the variable ZOT names an executable. */
export const measuredMirrors = (): MirrorName[] =>
  MIRRORS.filter((name) => name !== 'zot' || zotExecutable() !== undefined);

const zotExecutable = (): string | undefined => process.env['ZOT'] || undefined;

/** A server under test. */
export interface RunningMirror {
  name: string;
  url: string;
  pid: number;
}

/** Starts an empty mirror (the built backref) of `upstream`, under `prefix` (a `taskset`) if given. */
export async function startMirror(
  scope: Scope,
  tools: Toolbox,
  name: MirrorName,
  upstream: string,
  prefix: readonly string[] = [],
): Promise<RunningMirror> {
  if (name === 'zot') return startZot(scope, upstream, prefix);
  if (name !== 'backref') {
    const {url, process} = await startRegistry(scope, tools, name, {mirrorOf: upstream, prefix});
    return {name, url, pid: process.pid};
  }
  return startOwn(scope, upstream, {prefix});
}

export interface OwnMirrorOptions {
  prefix?: readonly string[];
  /** More of its configuration. */
  settings?: Record<string, unknown>;
  /** Profiles it, from the sources: they say which file a function is in. */
  profiler?: Profiler;
}

/** A mirror of ours. */
export interface OwnMirror extends RunningMirror {
  process: Started;
}

/** Starts backref as a mirror, as it is published unless it is profiled. */
export async function startOwn(
  scope: Scope,
  upstream: string,
  {prefix = [], settings = {}, profiler}: OwnMirrorOptions,
): Promise<OwnMirror> {
  const folder = join(scope.folder, 'cache');
  await mkdir(folder, {recursive: true});
  const {url, process} = await startBackref(scope, {
    ...(profiler ? {main: SOURCES, flags: profiler.flags, env: profiler.env} : {main: BUILT}),
    ...{upstream, folder, ttl: '1h', prefix, settings},
  });
  return {name: 'backref', url, pid: process.pid, process};
}

/** Fetches from its upstream what it is asked for and does not have ("on demand"). */
async function startZot(scope: Scope, upstream: string, prefix: readonly string[]): Promise<RunningMirror> {
  const port = await ownPort();
  const url = `http://127.0.0.1:${port}`;
  const file = join(scope.folder, 'zot.json');
  const registry = {urls: [upstream], onDemand: true, tlsVerify: false, content: [{prefix: '**'}]};
  const config = {
    storage: {rootDirectory: join(scope.folder, 'zot')},
    http: {address: '127.0.0.1', port: `${port}`},
    log: {level: 'error'},
    extensions: {sync: {enable: true, registries: [registry]}},
  };
  await writeFile(file, JSON.stringify(config));
  const [command = '', ...args] = [...prefix, zotExecutable() ?? 'zot', 'serve', file];
  const started = scope.start(command, args);
  await ready(started, 'zot', answers(`${url}/v2/`));
  return {name: 'zot', url, pid: started.pid};
}

/** What the executable says that it was built from. @throws Error when it cannot be run */
export async function zotVersion(scope: Scope): Promise<string> {
  const executable = zotExecutable();
  if (!executable) return '';
  return /"commit":"([^"]*)"/.exec(await scope.run(executable, ['--version']))?.[1] || 'of an unknown commit';
}

/** A running process's peak resident memory, in bytes. @throws Error when it has ended. */
export async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (!kibibytes) throw new Error(`/proc/${pid}/status has no VmHWM`);
  return Number(kibibytes) * 1024;
}
