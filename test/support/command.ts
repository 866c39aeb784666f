import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import {resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {ExecutionContext} from 'ava';

export const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface Surroundings {
  cwd: string;
  env?: Record<string, string>;
}

/** A `backref` command under way. */
export interface Command {
  child: ChildProcess;
  /** Everything that was printed so far. */
  printed(): {stdout: string; stderr: string};
  /** Resolves with the match as soon as what was printed to stdout holds one; rejects when the command ends before. */
  prints(pattern: RegExp): Promise<RegExpMatchArray>;
  /** The exit code, or the signal that ended the command. */
  ended: Promise<number | NodeJS.Signals | null>;
}

/** Where node keeps the sources that it has compiled: a command starts in half the time with them. */
const {NODE_COMPILE_CACHE} = process.env;
const COMPILED: Record<string, string> = NODE_COMPILE_CACHE
  ? {NODE_COMPILE_CACHE: resolve(NODE_COMPILE_CACHE)}
  : {};

/**
 * Starts `backref` with nothing of this process's environment that it could tell; a command that still runs ends with
 * the test.
 */
export function start(t: ExecutionContext, args: readonly string[], {cwd, env = {}}: Surroundings): Command {
  return startProgram(t, process.execPath, [MAIN, ...args], {cwd, env});
}

/** Starts any program, in the same way. */
export function startProgram(
  t: ExecutionContext,
  program: string,
  args: readonly string[],
  {cwd, env = {}}: Surroundings,
): Command {
  const child = spawn(program, args, {cwd, env: {...COMPILED, ...env}, stdio: ['ignore', 'pipe', 'pipe']});
  const printed = {stdout: '', stderr: ''};
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      printed[name] += text;
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
        const more = once(child.stdout, 'data').then(() => true);
        const running = await Promise.race([more, ended.then(() => false)]);
        if (!running && !pattern.test(printed.stdout))
          throw new Error(`ended without printing ${pattern}: ${JSON.stringify(printed)}`);
      }
    },
  };
}

/** Runs `backref` to its end. */
export async function run(t: ExecutionContext, args: readonly string[], surroundings: Surroundings) {
  const command = start(t, args, surroundings);
  const code = await command.ended;
  return {code, ...command.printed()};
}
