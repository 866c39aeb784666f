import {access} from 'node:fs/promises';
import type {Config} from '../config.ts';
import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';
import {Interrupted, withCommands} from './live-commands.ts';
import {createJsonReport, createTextReport} from './report.ts';

interface Counts {
  manifests: number;
  edges: number;
  removed: number;
}

const number = (value: number): string => value.toLocaleString('en-US');

const wording = {
  progress: ({done, manifests, edges}: Counts & {done: number}): [number, string] => [
    done,
    `${number(manifests)} manifests, ${number(edges)} of them refer to another`,
  ],
  result: ({manifests, edges, removed}: Counts): string =>
    `Read ${number(manifests)} manifests: ${number(edges)} refer to another and are in the index; ${number(removed)} entries that no manifest makes were removed.`,
};

/**
 * `backref reindex`: rebuilds the index of referrers from the stored manifests.
 * @returns the exit code: 0 when it is rebuilt, 1 when not, 2 for a faulty configuration, 130 or 143 after a signal.
 */
export async function reindex({json = false, ...options}: ConfigOptions & {json?: boolean}): Promise<number> {
  const loaded = await loadConfiguration(options);
  if (!loaded) return FAULTY;
  const {config} = loaded;
  const report = json
    ? createJsonReport<Counts & {done: number}, Counts>()
    : createTextReport<Counts & {done: number}, Counts>(wording);
  try {
    await expectStore(config);
    const result = await withCommands(config, (commands, signal) =>
      commands.reindex({signal, progress: report.progress}),
    );
    report.result(result);
    return 0;
  } catch (error) {
    report.error(error);
    return error instanceof Interrupted ? error.exitCode : 1;
  }
}

/** An index of nothing is no answer to who has named the wrong configuration. */
async function expectStore({storage: {metadata}}: Config): Promise<void> {
  try {
    await access(metadata.path);
  } catch {
    throw new Error(
      `There is no store to be indexed: ${metadata.path} does not exist. Name the server's configuration with --config, or set storage.metadata.path.`,
    );
  }
}
