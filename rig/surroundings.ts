import {readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import type {Scope, Started} from './scope.ts';

const PRELOAD = fileURLToPath(new URL('preload.ts', import.meta.url));

/** What a server under test is told. */
export interface Control {
  /** Grows with each change; written to the file `.seen` beside it when it is in force. */
  version: number;
  /** Milliseconds that are added to the wall clock. */
  clockOffset: number;
  dnsFails: boolean;
}

/** The wall clock and the DNS of a server under test, for one process after another. */
export interface Surroundings {
  /** The flags of Node with which such a process starts. */
  readonly flags: readonly string[];
  /** The variables that it needs besides. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Changes them for the processes that start from now on.
   * @param server resolves when the change is in force in this process as well, or when it has ended
   */
  change(
    change: Partial<Omit<Control, 'version'>>,
    server: Pick<Started, 'pid' | 'ended'> | undefined,
  ): Promise<void>;
}

/** @param scope its folder holds the file that the processes read. */
export async function createSurroundings(scope: Scope): Promise<Surroundings> {
  const file = join(scope.folder, 'control.json');
  let control: Control = {version: 0, clockOffset: 0, dnsFails: false};
  const write = () => writeFile(file, JSON.stringify(control));
  await write();
  return {
    flags: ['--import', PRELOAD],
    env: {RIG_CONTROL: file},
    async change(change, server) {
      control = {...control, ...change, version: control.version + 1};
      await write();
      if (!server || server.ended()) return;
      process.kill(server.pid, 'SIGUSR2');
      while (!server.ended() && Number(await readFile(`${file}.seen`, 'utf8')) !== control.version)
        await delay(5);
    },
  };
}
