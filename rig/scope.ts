import {type ChildProcess, execFile, spawn} from 'node:child_process';
import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {basename, join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';

/** A server that was started here and is stopped with its scope. */
export interface Started {
  readonly pid: number;
  /** The end of what it printed, for an error's text. */
  output(): string;
  /** True once it has ended, for any reason. */
  ended(): boolean;
  /** Sends a signal and resolves when the process has ended. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Sends SIGTERM, and after ten seconds SIGKILL to its process group. Resolves when it has ended. Idempotent. */
  stop(): Promise<void>;
}

export interface StartOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

/** Everything that one piece of work has started, to be undone together: processes, mounts, and a temporary folder. */
export interface Scope {
  /** This scope's own empty folder. Its path is short, because the path of a socket in it may have 107 bytes. */
  readonly folder: string;
  /** A scope that ends with this one at the latest. */
  child(): Promise<Scope>;
  /** Runs `undo` at the end, the last one first. */
  defer(undo: () => Promise<void> | void): void;
  /** Starts a server. It need not be ready when this returns: see `ready`. */
  start(command: string, args: readonly string[], options?: StartOptions): Started;
  /**
   * Runs a command to its end and returns its output.
   * @throws Error with the end of its output when it exits with another status than 0, or not within `timeout` ms.
   */
  run(command: string, args: readonly string[], options?: StartOptions & {timeout?: number}): Promise<string>;
  /** Ends and removes everything. Idempotent. */
  end(): Promise<void>;
}

const MAX_OUTPUT_LENGTH = 8_000;
const STOP_TIMEOUT_MS = 10_000;

/** @throws Error when the temporary folder cannot be made. */
export async function createScope(): Promise<Scope> {
  const folder = await mkdtemp(join(tmpdir(), 'backref-run-'));
  const undos: (() => Promise<void> | void)[] = [];
  let ending: Promise<void> | undefined;

  const end = async () => {
    for (let undo = undos.pop(); undo; undo = undos.pop()) await undo();
    await unmountBelow(folder);
    await rm(folder, {recursive: true, force: true, maxRetries: 5});
  };
  const expectNotEnding = () => {
    if (ending) throw new Error('the run is being ended');
  };
  const defer = (undo: () => Promise<void> | void) => {
    expectNotEnding();
    undos.push(undo);
  };
  return {
    folder,
    defer,
    async child() {
      const scope = await createScope();
      if (ending) await scope.end();
      defer(scope.end);
      return scope;
    },
    start(command, args, options = {}) {
      expectNotEnding();
      const started = startProcess(command, args, options);
      defer(started.stop);
      return started;
    },
    run: (command, args, {timeout = 60_000, ...options} = {}) =>
      new Promise((resolve, reject) => {
        if (ending) return reject(new Error('the run is being ended'));
        const settings = {maxBuffer: 1 << 26, timeout, killSignal: 'SIGKILL', ...options} as const;
        const child = execFile(command, args, settings, (error, stdout, stderr) => {
          if (!error) return resolve(stdout);
          const how = child.signalCode ? `was ended by ${child.signalCode}` : `exited with ${error.code}`;
          const text = `${args.join(' ')} ${how}: ${`${stdout}${stderr}`.trim().slice(-MAX_OUTPUT_LENGTH)}`;
          reject(new Error(`${basename(command)} ${text}`.replaceAll(folder, '.')));
        });
        defer(() => void child.kill('SIGKILL'));
      }),
    end: () => (ending ??= end()),
  };
}

function startProcess(command: string, args: readonly string[], options: StartOptions): Started {
  // Its own process group, so that its children can be stopped with it, and Ctrl-C reaches only this process.
  const child = spawn(command, args, {...options, detached: true, stdio: ['ignore', 'pipe', 'pipe']});
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-MAX_OUTPUT_LENGTH);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', (error) => {
      output += error.message;
      resolve();
    });
  });
  const ended = () => child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
  return {
    pid: child.pid ?? -1,
    output: () => output,
    ended,
    kill(signal) {
      child.kill(signal);
      return gone;
    },
    async stop() {
      if (ended()) return;
      child.kill('SIGTERM');
      const late = new AbortController();
      const killing = delay(STOP_TIMEOUT_MS, undefined, {signal: late.signal}).then(
        () => endGroup(child),
        () => {},
      );
      await gone;
      late.abort();
      await killing;
      endGroup(child);
    },
  };
}

function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // No process is left in the group.
  }
}

/** Lazily unmounts everything that container engines left mounted below a folder, deepest first. */
async function unmountBelow(folder: string): Promise<void> {
  const table = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  const points = table
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point.startsWith(`${folder}/`))
    .sort((a, b) => b.length - a.length);
  for (const point of points) {
    await new Promise<void>((resolve) => execFile('umount', ['--lazy', point], () => resolve()));
  }
}

/**
 * Waits until `probe` gives true, at most 20 s.
 * @throws Error with the server's output when it ended or did not get ready in time.
 */
export async function ready(started: Started, name: string, probe: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (Date.now() < deadline && !started.ended()) {
    if (await probe().catch(() => false)) return;
    await delay(25);
  }
  const what = started.ended() ? 'ended instead of getting ready' : 'did not get ready within 20 s';
  throw new Error(`${name} ${what}: ${started.output().trim() || 'it printed nothing'}`);
}

/** A probe for `ready`: the URL answers with this status. */
export const answers =
  (url: string, status = 200) =>
  async (): Promise<boolean> => {
    const response = await fetch(url, {signal: AbortSignal.timeout(1_000)});
    await response.body?.cancel();
    return response.status === status;
  };

/** Ends the scope and the process on SIGINT or SIGTERM, or after `limit` milliseconds. */
export function endOnSignal(scope: Scope, limit: number): void {
  const endWith = (status: number, reason: string) => {
    process.stderr.write(`${reason}: ending what was started\n`);
    scope.end().finally(() => process.exit(status));
  };
  process.once('SIGINT', () => endWith(130, 'interrupted'));
  process.once('SIGTERM', () => endWith(143, 'told to end'));
  setTimeout(() => endWith(1, `not done within ${limit / 60_000} minutes`), limit).unref();
}
