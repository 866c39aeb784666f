import {fileURLToPath} from 'node:url';
import {type Options, runCommand, say} from '../rig/command.ts';
import {writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {findTools, type Toolbox} from '../rig/tools.ts';
import {measureCold} from './cold.ts';
import {measureEviction} from './eviction/measure.ts';
import {measureLogins} from './logins.ts';
import {measureReferrers} from './referrers.ts';
import {faults, tables, type Versions, warmTable} from './report.ts';
import {measureWarm} from './warm.ts';

const USAGE = `Measures backref beside docker-registry and distribution as mirrors, and nginx.

  --only PART      only one part: cold, warm, logins or referrers
  --only eviction  a simulation of which images are evicted, beside other orders; not part of a whole run
  --trace FILE     simulate that on a trace in libCacheSim's oracleGeneral format, plain, .gz or .zst
  --json           the results as JSON instead of tables
  --write          write the tables of a whole run into docs/performance.md, the warm one into README.md too;
                   those of the simulation, and its plots, into docs/reliability.md
`;
/** What `npm run build` runs. Its output is published; running the sources would also use the compiler's memory. */
const BUILD = fileURLToPath(new URL('../build/main.ts', import.meta.url));
/** The servers that backref is compared with. */
const PEERS = ['docker-registry', 'registry', 'nginx'] as const;
const TIME_LIMIT = 20 * 60_000;

async function measure(scope: Scope, options: Options): Promise<number> {
  const {only, json, write, given} = options;
  if (only === 'eviction') return measureEviction(options, say);
  if (given['trace'] !== undefined) throw new Error('--trace goes with --only eviction');
  if (!['', 'cold', 'warm', 'logins', 'referrers'].includes(only)) {
    throw new Error(`--only takes cold, warm, logins, referrers or eviction, not "${only}"`);
  }
  const isWanted = (part: string): boolean => only === '' || only === part;

  const hasPeers = isWanted('cold') || isWanted('warm');
  const tools = await findTools(scope, hasPeers ? [...PEERS, 'wrk'] : ['wrk'], say);
  const versions = hasPeers ? versionsOf(tools) : {};
  say('building backref');
  await scope.run(process.execPath, [BUILD]);
  const cold = isWanted('cold') ? await measureCold(scope, tools, say) : [];
  const warm = isWanted('warm') ? await measureWarm(scope, tools, say) : [];
  const logins = isWanted('logins') ? await measureLogins(scope, tools, say) : [];
  const referrers = isWanted('referrers') ? await measureReferrers(scope, tools, say) : undefined;
  const results = {cold, warm, logins, referrers};
  const text = tables(results, versions);
  process.stdout.write(json ? `${JSON.stringify({versions, ...results}, undefined, 2)}\n` : `${text}\n`);
  if (write && only === '') {
    await writeSection('docs/performance.md', 'bench', text);
    await writeSection('README.md', 'bench', warmTable(warm, versions));
  }
  const wrong = faults(results);
  for (const fault of wrong) say(`backref: ${fault}`);
  return wrong.length > 0 ? 1 : 0;
}

const versionsOf = (tools: Toolbox): Versions => ({
  backref: 'backref',
  'docker-registry': `docker-registry ${tools.version('docker-registry')}`,
  distribution: `distribution ${tools.version('registry')}`,
  nginx: `nginx ${tools.version('nginx')}, static files`,
});

await runCommand({name: 'bench', usage: USAGE, timeLimit: TIME_LIMIT, options: ['trace']}, measure);
