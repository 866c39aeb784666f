import {setTimeout as delay} from 'node:timers/promises';
import {restart} from './recovery.ts';
import {checkDeletion, checkPush} from './requests.ts';
import {verify} from './steps/damage.ts';
import type {World} from './world.ts';

const QUIET_TIMEOUT_MS = 10_000;
/** The own client's connections, those to upstreams, and those that idle. */
const MAX_SOCKETS = 400;
const DAY_MS = 24 * 60 * 60_000;
const SWEEP_TIMEOUT_MS = 15_000;

/** Files that the server has open as long as it runs. */
const LASTING = /\/(meta\.db(-wal|-shm)?|backref\.lock)$/;

/** When no request is under way, no blob, spool or upload is open, and nothing that was deleted. */
export async function checkDescriptors(world: World): Promise<void> {
  const {server, tally} = world;
  const deadline = Date.now() + QUIET_TIMEOUT_MS;
  for (;;) {
    const open = await server.descriptors();
    const files = open.filter((target) => target.startsWith(server.folder) && !LASTING.test(target));
    const sockets = open.filter((target) => target.startsWith('socket:')).length;
    if (files.length === 0 && sockets <= MAX_SOCKETS) return;
    if (Date.now() > deadline) {
      tally.violate('leaked files and descriptors', `open: ${sockets} sockets, and ${files.join(', ')}`);
      return;
    }
    await delay(100);
  }
}

/** What the server itself counts. Its counters begin anew with each process. */
export interface Counters {
  /** Adds what was counted since the last call. */
  read(world: World): Promise<void>;
}

const COUNTED = {
  backref_evictions_total: 'evictions',
  backref_fill_resumptions_total: 'resumptions',
  backref_fills_total: 'downloads',
  backref_damaged_total: 'damaged files found',
} as const;

/** Metrics that are 0 as long as all promises are kept. */
const ALWAYS_ZERO = {
  backref_broken_promises_total: 'broken promises',
  backref_faults_total: 'answers that no failure explains',
} as const;

export function createCounters(): Counters {
  let pid: number | undefined;
  let before = new Map<string, number>();
  return {
    async read({server, tally}) {
      const metrics = await server.metrics();
      if (pid !== server.pid()) before = new Map();
      pid = server.pid();
      const grown = (name: string) => Math.max(0, (metrics.get(name) ?? 0) - (before.get(name) ?? 0));
      for (const [name, counted] of Object.entries(COUNTED)) tally.count(counted, grown(name));
      for (const [name, promise] of Object.entries(ALWAYS_ZERO)) {
        if (grown(name) > 0)
          tally.violate(promise, `${name} has grown by ${grown(name)}: ${server.output().slice(-1500)}`);
      }
      before = metrics;
    },
  };
}

/** At the end: every push is there and every deletion holds, nothing is damaged that was not damaged on purpose, and nothing is left lying about. */
export async function checkEverything(world: World): Promise<void> {
  for (const pushed of world.model.pushes) await checkPush(world, pushed);
  for (const pushed of world.model.deletions) await checkDeletion(world, pushed);
  const {bad, output} = await verify(world);
  for (const digest of bad) world.tally.violate('damage that was not injected', `verify finds ${digest} bad`);
  world.tally.count('files without a row', Number(/"unrecorded":(\d+)[^\n]*\n?$/.exec(output)?.[1] ?? 0));
  await checkSweep(world);
}

/** Days later a new process removes what transfers left behind, and files that no metadata know. */
async function checkSweep(world: World): Promise<void> {
  const {server, stored, tally} = world;
  world.condition = {...world.condition, dying: true};
  await server.stop();
  await server.setClock(3 * DAY_MS);
  await restart(world);
  const deadline = Date.now() + SWEEP_TIMEOUT_MS;
  while ((await stored.spools()).length > 0 && Date.now() < deadline) await delay(100);
  const left = await stored.spools();
  if (left.length > 0) tally.violate('leaked files and descriptors', `spools are left: ${left.join(', ')}`);
  const collected = await server.command('gc', '--json');
  if (!collected.succeeded) tally.violate('answers that no failure explains', `gc: ${collected.output}`);
  const {output} = await verify(world);
  const unrecorded = Number(/"unrecorded":(\d+)[^\n]*\n?$/.exec(output)?.[1] ?? 0);
  if (unrecorded > 0)
    tally.violate('leaked files and descriptors', `${unrecorded} files have no row after gc`);
}
