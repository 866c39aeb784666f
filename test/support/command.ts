import {type ChildProcess, execFile, spawn} from 'node:child_process';
import {once} from 'node:events';
import {existsSync} from 'node:fs';
import {writeFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import type {ExecutionContext} from 'ava';
import {findExecutable} from '../../rig/executable.ts';
import {runProgram} from '../../src/cli/program.ts';

export const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface CommandOptions {
  cwd: string;
  env?: Record<string, string>;
}

/** A running command. */
export interface RunningCommand {
  child: ChildProcess;
  /** Everything that was printed so far. */
  printed(): {stdout: string; stderr: string};
  /** Resolves with the first match in stdout; rejects when the command ends without one. */
  prints(pattern: RegExp): Promise<RegExpMatchArray>;
  /** The exit code, or the signal that ended the command. */
  ended: Promise<number | NodeJS.Signals | null>;
}

/** Where node caches compiled sources, which halve the time that a command takes to start. */
const {NODE_COMPILE_CACHE} = process.env;
export const COMPILED: Record<string, string> = NODE_COMPILE_CACHE
  ? {NODE_COMPILE_CACHE: resolve(NODE_COMPILE_CACHE)}
  : {};

/**
 * Starts `backref` in a process of its own, without this process's environment. A command that still runs ends with the
 * test.
 */
export function start(
  t: ExecutionContext,
  args: readonly string[],
  {cwd, env = {}}: CommandOptions,
): RunningCommand {
  return startProgram(t, process.execPath, [MAIN, ...args], {cwd, env});
}

/** Time limits of an upstream that a busy machine does not reach. */
export const PATIENT = {connect: '1m', headers: '1m', idle: '1m'};

/** Starts any program, in the same way. */
export function startProgram(
  t: ExecutionContext,
  program: string,
  args: readonly string[],
  {cwd, env = {}}: CommandOptions,
): RunningCommand {
  return watch(t, spawn(program, args, {cwd, env: {...COMPILED, ...env}, stdio: ['ignore', 'pipe', 'pipe']}));
}

/**
 * Starts `backref` in a terminal of its own, whose output is the command's stdout.
 * @returns undefined where no terminal can be made.
 */
export async function startInTerminal(
  t: ExecutionContext,
  args: readonly string[],
  {cwd, env = {}}: CommandOptions,
): Promise<RunningCommand | undefined> {
  const script = await findExecutable('script');
  if (!script || !existsSync('/dev/ptmx')) return undefined;
  // Other programs of this name take other options.
  const {stdout} = await promisify(execFile)(script, ['--version']).catch(() => ({stdout: ''}));
  if (!stdout.includes('util-linux')) return undefined;
  const line = [process.execPath, MAIN, ...args].map((word) => `'${word}'`).join(' ');
  const child = spawn(script, ['--quiet', '--return', '--command', `exec ${line}`, '/dev/null'], {
    cwd,
    env: {...COMPILED, PATH: '/usr/bin:/bin', SHELL: '/bin/sh', TERM: 'xterm', ...env},
    // The open stdin keeps an end of file out of the terminal. The command inherits the fourth pipe, which closes only
    // when it has ended, even if `script` was killed.
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  });
  child.stdio[3]?.on('data', () => {});
  return watch(t, child);
}

/**
 * The environment of a command that sends itself a signal as soon as it has printed a text: at that point of its work
 * for sure, however slow the machine is.
 */
export async function signalAfter(
  cwd: string,
  text: string,
  signal: NodeJS.Signals,
): Promise<Record<string, string>> {
  const preload = join(cwd, `${signal}.mjs`);
  await writeFile(
    preload,
    `const {write} = process.stdout;
process.stdout.write = function (chunk, ...rest) {
  const written = write.call(this, chunk, ...rest);
  if (String(chunk).includes(${JSON.stringify(text)})) {
    process.stdout.write = write;
    process.kill(process.pid, '${signal}');
  }
  return written;
};
`,
  );
  return {NODE_OPTIONS: `--import=${preload}`};
}

function watch(t: ExecutionContext, child: ChildProcess): RunningCommand {
  const printed = {stdout: '', stderr: ''};
  for (const name of ['stdout', 'stderr'] as const)
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      printed[name] += text;
      child.emit('printed');
    });
  const ended = once(child, 'close').then(([code, signal]) => code ?? signal);
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  return {
    child,
    printed: () => printed,
    ended,
    prints: async (pattern) => {
      for (;;) {
        const match = pattern.exec(printed.stdout);
        if (match) return match;
        const more = once(child, 'printed').then(() => true);
        const running = await Promise.race([more, ended.then(() => false)]);
        if (!running && !pattern.test(printed.stdout))
          throw new Error(`ended without printing ${pattern}: ${JSON.stringify(printed)}`);
      }
    },
  };
}

/** Runs `backref` to its end in a process of its own. */
export async function run(t: ExecutionContext, args: readonly string[], surroundings: CommandOptions) {
  const command = start(t, args, surroundings);
  const code = await command.ended;
  return {code, ...command.printed()};
}

/**
 * Runs `backref` to its end in this process, which takes a fraction of the time. Its working directory is this
 * process's, so files are named by absolute paths.
 */
export async function call(args: readonly string[], env: Record<string, string> = {}) {
  const printed = {stdout: '', stderr: ''};
  const screen = (name: 'stdout' | 'stderr') => ({
    write(text: string) {
      printed[name] += text;
    },
  });
  const code = await runProgram(args, {env, stdout: screen('stdout'), stderr: screen('stderr')});
  return {code, ...printed};
}
