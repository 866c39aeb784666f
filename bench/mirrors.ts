import {mkdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {BUILT, startBackref} from '../rig/backref.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {startRegistry} from '../rig/upstreams.ts';

/** The pull-through mirrors that are compared, backref first. */
export const MIRRORS = ['backref', 'docker-registry', 'distribution'] as const;
export type MirrorName = (typeof MIRRORS)[number];

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
  if (name !== 'backref') {
    const {url, process} = await startRegistry(scope, tools, name, {mirrorOf: upstream, prefix});
    return {name, url, pid: process.pid};
  }
  const folder = join(scope.folder, 'cache');
  await mkdir(folder, {recursive: true});
  const {url, process} = await startBackref(scope, {main: BUILT, upstream, folder, ttl: '1h', prefix});
  return {name, url, pid: process.pid};
}

/** A running process's peak resident memory, in bytes. @throws Error when it has ended. */
export async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  if (!kibibytes) throw new Error(`/proc/${pid}/status has no VmHWM`);
  return Number(kibibytes) * 1024;
}
