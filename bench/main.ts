import {fileURLToPath} from 'node:url';
import {type Options, runCommand, say} from '../rig/command.ts';
import {writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {findTools, type Toolbox} from '../rig/tools.ts';
import {measureCold} from './cold.ts';
import {measureEviction} from './eviction/measure.ts';
import {GROWTH_PARTS, measureGrowth, writeGrowth} from './growth/measure.ts';
import type {GrowthReport} from './growth/report.ts';
import {measureLogins} from './logins.ts';
import {measureReferrers} from './referrers.ts';
import {faults, tables, type Versions, warmTable} from './report.ts';
import {measureStart} from './start.ts';
import {measureWarm} from './warm.ts';

const USAGE = `Measures backref beside docker-registry and distribution as mirrors, and nginx.

  --only PART      only one part: start, cold, warm, logins or referrers; or one that shows how cost grows:
                   growth-manifests, growth-connections, growth-referrers or mixed
  --only eviction  a simulation of which images are evicted, beside other orders; not part of a whole run
  --trace FILE     simulate that on a trace in libCacheSim's oracleGeneral format, plain, .gz or .zst
  --json           the results as JSON instead of tables
  --write          write the tables of a whole run into docs/performance.md, the warm one into README.md too; those that
                   show how cost grows, and their charts, also of a single part; those of the simulation, and its plots,
                   into docs/reliability.md
`;
/** What `npm run build` runs. Its output is published; running the sources would also use the compiler's memory. */
const BUILD = fileURLToPath(new URL('../build/main.ts', import.meta.url));
const BUILD_TIMEOUT_MS = 10 * 60_000;
/** The servers that backref is compared with. */
const PEERS = ['docker-registry', 'registry', 'nginx', 'crane'] as const;
const TIME_LIMIT = 90 * 60_000;
/** The parts whose tables are one section, which a whole run writes. */
const MAIN_PARTS = ['start', 'cold', 'warm', 'logins', 'referrers'];

async function measure(scope: Scope, options: Options): Promise<number> {
  const {only, json, write, given} = options;
  if (only === 'eviction') return measureEviction(options, say);
  if (given['trace'] !== undefined) throw new Error('--trace goes with --only eviction');
  const parts = [...MAIN_PARTS, ...GROWTH_PARTS];
  if (only !== '' && !parts.includes(only))
    throw new Error(`--only takes ${parts.join(', ')} or eviction, not "${only}"`);
  const isWanted = (part: string): boolean => only === '' || only === part;

  const hasPeers = isWanted('cold') || isWanted('warm');
  const tools = await findTools(scope, hasPeers ? [...PEERS, 'wrk'] : ['wrk'], say);
  const versions = hasPeers ? versionsOf(tools) : {};
  say('building backref');
  await scope.run(process.execPath, [BUILD], {timeout: BUILD_TIMEOUT_MS});
  const start = isWanted('start') ? await measureStart(await scope.child(), say) : [];
  const cold = isWanted('cold') ? await measureCold(scope, tools, say) : [];
  const warm = isWanted('warm') ? await measureWarm(scope, tools, say) : [];
  const logins = isWanted('logins') ? await measureLogins(scope, tools, say) : [];
  const referrers = isWanted('referrers') ? await measureReferrers(scope, tools, say) : undefined;
  const results = {start, cold, warm, logins, referrers};
  const isMain = only === '' || MAIN_PARTS.includes(only);
  const text = isMain ? tables(results, versions) : '';
  if (write && only === '') {
    await writeSection('docs/performance.md', 'bench', text);
    await writeSection('README.md', 'bench', warmTable(warm, versions));
  }
  const growth = new Map<string, GrowthReport>();
  for (const part of GROWTH_PARTS.filter(isWanted)) {
    const report = await measureGrowth(part, scope, tools, say);
    if (write) await writeGrowth(part, report);
    growth.set(part, report);
  }
  const texts = [...(isMain ? [text] : []), ...[...growth.values()].map((report) => report.text)];
  const all = {versions, ...results, growth: Object.fromEntries(growth)};
  process.stdout.write(json ? `${JSON.stringify(all, undefined, 2)}\n` : `${texts.join('\n\n')}\n`);
  return reportFaults(faults(results), growth);
}

/** Prints faults, and the growth targets that were missed. @returns the exit status: 1 if there are faults */
function reportFaults(wrong: readonly string[], growth: ReadonlyMap<string, GrowthReport>): number {
  const failed = [...growth].flatMap(([part, {errors}]) =>
    errors > 0 ? [`${part}: ${errors} requests failed`] : [],
  );
  for (const fault of [...wrong, ...failed]) say(`backref: ${fault}`);
  for (const [part, {missed}] of growth)
    for (const sentence of missed) say(`target missed: ${part}: ${sentence}`);
  return wrong.length + failed.length > 0 ? 1 : 0;
}

const versionsOf = (tools: Toolbox): Versions => ({
  backref: 'backref',
  'docker-registry': `docker-registry ${tools.version('docker-registry')}`,
  distribution: `distribution ${tools.version('registry')}`,
  zot: 'zot on demand',
  nginx: `nginx ${tools.version('nginx')}, static files`,
});

await runCommand({name: 'bench', usage: USAGE, timeLimit: TIME_LIMIT, options: ['trace']}, measure);
