import type {Background} from './background.ts';
import {type Clock, sleep} from './clock.ts';
import type {Config} from './config.ts';
import type {App} from './http/app.ts';
import type {Storage} from './storage/open.ts';
import type {Wired} from './wire.ts';

/** The longest time between two removals of abandoned uploads and spools. */
const SWEEP_INTERVAL_MS = 60 * 60 * 1000;

/** How long after the start what the first pull needs is loaded: the start's own requests are answered by then. */
const PREPARE_AFTER_MS = 50;
/** How often to look for the blob store, so that the log says how long it has been missing. */
const STORE_CHECK_INTERVAL_MS = 60_000;
/** How often to try to write metadata again that could only be read. */
const REOPEN_INTERVAL_MS = 10_000;
/** How often what has become due is hashed. */
const SCRUB_STEP_MS = 60_000;
/** How often to see whether pinned images would survive an outage. */
const PINNED_INTERVAL_MS = 5 * 60_000;
const CHECK_PINNED = 'check the pinned images';
export const FIND_STORE = 'find the blob store';
/** How often the size of the cache is measured. What a pull or a push brings is looked at when it comes. */
const EVICTION_INTERVAL_MS = 60_000;
const EVICT = 'keep the cache to its limit';
/** How often uses of manifests, and who pulled what, are written. */
const USES_INTERVAL_MS = 60_000;
/** How often requests that were counted together are reported. */
const HAND_OVER_INTERVAL_MS = 1000;

interface WorkParts {
  config: Pick<Config, 'uploads' | 'garbage' | 'scrub'>;
  storage: Pick<Storage, 'store'>;
  registries: {prepare(): Promise<void>};
  wired: Wired;
  app: Pick<App, 'requests'>;
  clock: Clock;
}

/** Starts the work that no request asks for. */
export function beginBackgroundWork(
  background: Background,
  {config, storage, registries, wired, app, clock}: WorkParts,
): void {
  const {uploads, garbage, scrub} = config;
  const {maintenance, push} = wired;
  const sweep = () => maintenance.sweepSpools();
  const expire = (signal: AbortSignal) => maintenance.expiry.run(clock.now() - uploads.expireAfter, signal);
  const collect = (signal: AbortSignal) =>
    maintenance.garbage.run({grace: garbage.grace, signal, progress: () => {}});
  background.every(STORE_CHECK_INTERVAL_MS, FIND_STORE, () => storage.store.check());
  background.every(REOPEN_INTERVAL_MS, 'open the metadata for writing', () => maintenance.reopenMetadata());
  background.once('load the client of upstreams', async (signal) => {
    await sleep(clock, PREPARE_AFTER_MS, signal);
    await registries.prepare();
  });
  background.once('sweep old spools', sweep);
  background.once('check the store', (signal) => maintenance.startCheck.run(signal));
  background.every(SWEEP_INTERVAL_MS, 'sweep old spools', sweep);
  background.every(SWEEP_INTERVAL_MS, 'sweep the quarantine', () => maintenance.sweepQuarantine());
  background.every(SWEEP_INTERVAL_MS, 'forget old links', (signal) => maintenance.boundLinks(signal));
  background.once('expire uploads', expire);
  background.every(Math.min(uploads.expireAfter, SWEEP_INTERVAL_MS), 'expire uploads', expire);
  if (garbage.interval > 0) background.every(garbage.interval, 'collect garbage', collect);
  if (scrub.every > 0) {
    background.every(SCRUB_STEP_MS, 'scrub', (signal) => maintenance.scrub.step(signal));
  }
  const evict = (signal: AbortSignal) => maintenance.evictor.step(signal);
  background.once(EVICT, evict);
  background.every(EVICTION_INTERVAL_MS, EVICT, evict);
  for (const {interval, task, work} of wired.identity.upkeep) background.every(interval, task, work);
  background.every(HAND_OVER_INTERVAL_MS, 'count requests', async () => app.requests.handOver());
  for (const {task, flush} of wired.records) background.every(USES_INTERVAL_MS, task, flush);
  background.every(SWEEP_INTERVAL_MS, 'forget old pulls', () => maintenance.pulls.bound());
  const checkPinned = (signal: AbortSignal) => maintenance.ready.checkPinned(signal);
  background.once(CHECK_PINNED, checkPinned);
  background.every(PINNED_INTERVAL_MS, CHECK_PINNED, checkPinned);
  push.reconciler.start();
}
