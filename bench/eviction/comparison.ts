import {setImmediate as nextTurn} from 'node:timers/promises';
import {simulateBelady, simulateLru} from './blob-caches.ts';
import {type Figures, workingSet} from './figures.ts';
import {simulateImages} from './image-cache.ts';
import {createWorkload, type Scale, type Workload} from './workload.ts';

/** The orders that are compared, by their names in the tables. */
export const ORDERS = ['backref', 'LRU', 'optimum'] as const;
export type OrderName = (typeof ORDERS)[number];

/** Cache sizes, as shares of the working set. */
export const CACHE_SHARES = [0.025, 0.05, 0.1, 0.2, 0.4] as const;

/** What the orders did with one workload. */
export interface Scenario {
  name: 'clients alone' | 'with a nightly crawl' | 'trace';
  pulls: number;
  /** Bytes of everything that clients ask for. */
  workingSet: number;
  sizes: {cacheShare: number; figures: Record<OrderName, Figures>}[];
}

/** Six weeks of a registry of a few hundred teams. */
export const SCALE: Scale = {seed: 1, days: 42, repositories: 400, bases: 40, pullsPerDay: 1600};

/** Percentage points by which backref may lag behind LRU, and must lead with the crawl at a tenth of the working set. */
const MAX_LAG = 1;
const MIN_LEAD = 5;
const LEAD_AT = 0.1;

/** Both scenarios of a scale; caches are as large in one as in the other. */
export async function compareScenarios(scale: Scale, say: (line: string) => void): Promise<Scenario[]> {
  const quiet = createWorkload(scale, {crawl: false});
  const bytes = workingSet(quiet);
  return [
    await compare('clients alone', quiet, bytes, say),
    await compare('with a nightly crawl', createWorkload(scale, {crawl: true}), bytes, say),
  ];
}

/** Each cache size with each order. @param bytes the working set that cache sizes are shares of */
export async function compare(
  name: Scenario['name'],
  workload: Workload,
  bytes: number,
  say: (line: string) => void,
): Promise<Scenario> {
  const sizes: Scenario['sizes'] = [];
  for (const cacheShare of CACHE_SHARES) {
    say(`${name}: a cache of ${100 * cacheShare} % of ${Math.round(bytes / 1e9)} GB`);
    // So that a signal ends the run.
    await nextTurn();
    const capacity = cacheShare * bytes;
    const figures = {
      backref: simulateImages(workload, capacity),
      LRU: simulateLru(workload, capacity),
      optimum: simulateBelady(workload, capacity),
    };
    sizes.push({cacheShare, figures});
  }
  return {name, pulls: workload.pulls.length, workingSet: bytes, sizes};
}

/** The targets that were missed, each as a sentence. */
export const missedTargets = (scenarios: readonly Scenario[]): string[] => scenarios.flatMap(missedIn);

function missedIn({name, sizes}: Scenario): string[] {
  const missed: string[] = [];
  for (const {cacheShare, figures} of sizes) {
    const where = `${name}, a cache of ${100 * cacheShare} %`;
    const lead = 100 * (figures.backref.completePulls - figures.LRU.completePulls);
    if (figures.backref.brokenPromises > 0) {
      missed.push(`${where}: ${figures.backref.brokenPromises} broken promises instead of 0`);
    }
    if (name === 'clients alone' && lead < -MAX_LAG) {
      missed.push(`${where}: ${(-lead).toFixed(1)} points fewer complete pulls than LRU, at most ${MAX_LAG}`);
    }
    if (name === 'with a nightly crawl' && cacheShare === LEAD_AT && lead < MIN_LEAD) {
      missed.push(
        `${where}: ${lead.toFixed(1)} points more complete pulls than LRU instead of at least ${MIN_LEAD}`,
      );
    }
  }
  return missed;
}
