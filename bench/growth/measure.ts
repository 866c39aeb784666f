import {writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';
import {writeSection} from '../../rig/page.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {drawChart} from './chart.ts';
import {measureConnections} from './connections.ts';
import {measureManifests} from './manifests.ts';
import {measureMixed} from './mixed.ts';
import {measureGrowingLists} from './referrers.ts';
import {connectionsReport, type GrowthReport, listsReport, manifestsReport, mixedReport} from './report.ts';

type Measure = (scope: Scope, tools: Toolbox, say: (line: string) => void) => Promise<GrowthReport>;

/** What shows how cost grows, by the name of the part. */
const PARTS: Readonly<Record<string, Measure>> = {
  'growth-manifests': async (...of) => manifestsReport(await measureManifests(...of)),
  'growth-connections': async (...of) => connectionsReport(await measureConnections(...of)),
  'growth-referrers': async (...of) => listsReport(await measureGrowingLists(...of)),
  mixed: async (...of) => mixedReport(await measureMixed(...of)),
};

export const GROWTH_PARTS: readonly string[] = Object.keys(PARTS);

/** Measures one of the parts. @throws Error for a name that is none of `GROWTH_PARTS` */
export async function measureGrowth(
  part: string,
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<GrowthReport> {
  const measure = PARTS[part];
  if (!measure) throw new Error(`the bench has no part "${part}"`);
  const own = await scope.child();
  const report = await measure(own, tools, say);
  await own.end();
  return report;
}

/** Writes a part's chart beside `docs/performance.md`, and its table into it. */
export async function writeGrowth(part: string, {text, chart}: GrowthReport): Promise<void> {
  const file = fileURLToPath(new URL(`../../docs/${part}.svg`, import.meta.url));
  await writeFile(file, drawChart(chart));
  await writeSection('docs/performance.md', part, `![${chart.title}](${part}.svg)\n\n${text}`);
}
