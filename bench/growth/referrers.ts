import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {type ServedContents, startContents} from '../contents.ts';
import {download, median} from '../download.ts';
import {digestFor, indexOf, NAME, referrer, startReferrersServer} from '../referrers.ts';
import {onCore} from '../warm.ts';
import {runWrk} from '../wrk.ts';

const COUNTS = [10, 1000, 10_000];
const TYPES = 10;
const ADDED = 7;
const DURATION_S = 4;

/** What the list of one subject takes. Milliseconds, medians. */
export interface GrowingListResult {
  referrers: number;
  /** One request after the other. */
  firstPage: number;
  filtered: number;
  /** The first page when a referrer has just been added. */
  grown: number;
  /** First pages a second, to four clients. */
  rate: number;
  errors: number;
}

/** Measures the lists of 10, 10^3 and 10^4 referrers of one subject. */
export async function measureGrowingLists(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<GrowingListResult[]> {
  const results: GrowingListResult[] = [];
  for (const count of COUNTS) {
    say(`${count} referrers of one subject`);
    const own = await scope.child();
    results.push(await measureList(own, tools, count));
    await own.end();
  }
  return results;
}

async function measureList(scope: Scope, tools: Toolbox, count: number): Promise<GrowingListResult> {
  const subject = digestFor('subject');
  const list = Array.from({length: count}, (_, index) => referrer(`${index}`, subject, index % TYPES));
  const added = Array.from({length: ADDED}, (_, index) => referrer(`added ${index}`, subject, 0));
  const contents: ServedContents = new Map([
    [`/v2/${NAME}/referrers/${subject}`, indexOf(list)],
    ...added.map((one) => [`/v2/${NAME}/manifests/${one.digest}`, one] as const),
  ]);
  const {url} = await startReferrersServer(scope, await startContents(scope, contents, 0));
  const page = `${url}/v2/${NAME}/referrers/${subject}`;
  const some = `${page}?artifactType=${encodeURIComponent('application/vnd.example.type-1+json')}`;
  const one = {connections: 1, duration: DURATION_S, prefix: onCore(0)};
  await download(page);
  await runWrk(scope, tools, {...one, url: page});
  const first = await runWrk(scope, tools, {...one, url: page});
  const filtered = await runWrk(scope, tools, {...one, url: some});
  const many = await runWrk(scope, tools, {...one, url: page, connections: 4});
  const grown: number[] = [];
  for (const {digest} of added) {
    await download(`${url}/v2/${NAME}/manifests/${digest}`);
    grown.push((await download(page)).whole);
  }
  return {
    referrers: count,
    firstPage: first.latency.p50,
    filtered: filtered.latency.p50,
    grown: median(grown),
    rate: many.requestsPerSecond,
    errors: first.errors + filtered.errors + many.errors,
  };
}
