import {readFile} from 'node:fs/promises';
import {performance} from 'node:perf_hooks';
import {setTimeout as delay} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {ready, type Scope} from '../../rig/scope.ts';
import {openSqliteMetadata, type SqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {median} from '../download.ts';
import {createProfiler} from '../profile/capture.ts';
import type {CpuProfile} from '../profile/summary.ts';
import {putManifest, smallManifest} from './fill.ts';

const ROUNDS = 5;
const COMMITS = 3200;
const CONCURRENCY = 32;
/** The numbers of new manifests begin above those of the largest store. */
const FIRST_NEW = 1_000_000;
const PROFILED_MS = 4000;
const LOAD = fileURLToPath(new URL('./commit-load.ts', import.meta.url));
export const COMMITTING = 'committing';

/** A database of manifests, and the scope that it ends with. */
interface SizedDatabase {
  scope: Scope;
  database: string;
}

/** How many commits a second each database does, and what is written for one of them. */
export async function commitRates(stores: readonly SizedDatabase[]) {
  const measured = [];
  for (const {scope, database} of stores) {
    const metadata = await openSqliteMetadata({path: database});
    scope.defer(() => metadata.close());
    measured.push({metadata, rates: [] as number[], bytes: [] as number[], writes: [] as number[]});
  }
  for (let round = 0; round <= ROUNDS; round++) {
    for (const {metadata, rates, bytes, writes} of measured) {
      const before = await written();
      const began = performance.now();
      await commitAll(metadata, round);
      const seconds = (performance.now() - began) / 1000;
      const after = await written();
      if (round === 0) continue;
      rates.push(COMMITS / seconds);
      bytes.push((after.bytes - before.bytes) / COMMITS);
      writes.push((after.calls - before.calls) / COMMITS);
    }
  }
  for (const {metadata} of measured) await metadata.close();
  return measured.map(({rates, bytes, writes}) => ({
    commitRate: median(rates),
    commitBytes: median(bytes),
    commitWrites: median(writes),
  }));
}

/** Stores manifests that no earlier round has stored. */
export async function commitAll(metadata: SqliteMetadata, round: number): Promise<void> {
  const first = round * COMMITS;
  for (let start = 0; start < COMMITS; start += CONCURRENCY) {
    const commits = Array.from({length: CONCURRENCY}, (_, index) => {
      const number = first + start + index;
      return metadata.commit([
        putManifest('library/new', smallManifest(`new ${number}`), FIRST_NEW + number),
      ]);
    });
    await Promise.all(commits);
  }
}

/** What this process has written, and in how many calls. Linux, proc_pid_io(5). */
async function written(): Promise<{bytes: number; calls: number}> {
  const text = await readFile('/proc/self/io', 'utf8');
  const number = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1]);
  return {bytes: number('wchar'), calls: number('syscw')};
}

/** Shows where the time of the thread goes that commits: the one that asks for commits waits for it. */
export async function profileCommits(scope: Scope, database: string): Promise<readonly CpuProfile[]> {
  const profiler = await createProfiler(scope);
  const load = scope.start(process.execPath, [...profiler.flags, LOAD, database], {env: profiler.env});
  await ready(load, 'the load of commits', async () => load.output().includes(COMMITTING));
  const {threads} = await profiler.capture(load, () => delay(PROFILED_MS));
  return threads.slice(1);
}
