import {writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';
import type {Options} from '../../rig/command.ts';
import {writeSection} from '../../rig/page.ts';
import {compare, compareScenarios, missedTargets, SCALE, type Scenario} from './comparison.ts';
import {workingSet} from './figures.ts';
import {plot} from './plot.ts';
import {evictionSection, evictionTables} from './report.ts';
import {readTrace} from './trace.ts';

const docs = (name: string): string => fileURLToPath(new URL(`../../docs/${name}`, import.meta.url));

/**
 * Compares orders of eviction, on the seeded workload or on a trace.
 * @returns the exit status: 1 when a target is missed
 */
export async function measureEviction(
  {json, write, given}: Pick<Options, 'json' | 'write' | 'given'>,
  say: (line: string) => void,
): Promise<number> {
  const path = given['trace'];
  const scenarios = path === undefined ? await compareScenarios(SCALE, say) : [await compareTrace(path, say)];
  const missed = missedTargets(scenarios);
  const results = {...(path === undefined ? {scale: SCALE} : {trace: path}), scenarios, missed};
  process.stdout.write(
    json ? `${JSON.stringify(results, undefined, 2)}\n` : `${evictionTables(scenarios)}\n`,
  );
  if (write && path === undefined) await writePage(scenarios);
  for (const sentence of missed) say(`target missed: ${sentence}`);
  return missed.length > 0 ? 1 : 0;
}

async function compareTrace(path: string, say: (line: string) => void): Promise<Scenario> {
  say(`reading ${path}`);
  const trace = await readTrace(path);
  return compare('trace', trace, workingSet(trace), say);
}

async function writePage(scenarios: readonly Scenario[]): Promise<void> {
  const pulls = plot(scenarios, {
    title: 'Complete pulls',
    figure: ({completePulls}) => completePulls,
  });
  const bytes = plot(scenarios, {title: 'Bytes from the cache', figure: ({byteHits}) => byteHits});
  await writeFile(docs('eviction-pulls.svg'), pulls);
  await writeFile(docs('eviction-bytes.svg'), bytes);
  await writeSection('docs/reliability.md', 'eviction', evictionSection(scenarios));
}
