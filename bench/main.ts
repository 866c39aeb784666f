import {fileURLToPath} from 'node:url';
import {type Options, runCommand, say} from '../rig/command.ts';
import type {Scope} from '../rig/scope.ts';
import {findTools, type Tool, type Toolbox} from '../rig/tools.ts';
import {measureEviction} from './eviction/measure.ts';
import {zotVersion} from './mirrors.ts';
import {partText, writePages} from './page.ts';
import type {AnyPart, Versions} from './part.ts';
import {PARTS} from './parts.ts';
import type {Profile} from './profile/profile.ts';
import {hereAndNow, type Measurement, readMeasurements, writeMeasurements} from './results.ts';
import type {Target} from './targets.ts';

const NAMES = PARTS.map(({name}) => name);
const USAGE = `Measures backref beside docker-registry and distribution as mirrors, and nginx. Measures zot as well
where the variable ZOT names its executable.

  --only PARTS     only these parts, separated by commas: ${NAMES.join(', ')}
  --only eviction  a simulation of which images are evicted, beside other orders; not part of a whole run
  --trace FILE     simulate that on a trace in libCacheSim's oracleGeneral format, plain, .gz or .zst
  --json           the results as JSON instead of tables
  --write          keep the results in bench/results.json, in place of the earlier ones of the same parts, and write
                   docs/performance.md, its charts and the figures in README.md from all that are kept there; those of the
                   simulation, and its plots, into docs/reliability.md
`;
/** What `npm run build` runs. Its output is published; running the sources would also use the compiler's memory. */
const BUILD = fileURLToPath(new URL('../build/main.ts', import.meta.url));
const BUILD_TIMEOUT_MS = 10 * 60_000;
/** A whole run takes half an hour on two cores that do nothing else. */
const TIME_LIMIT_MS = 90 * 60_000;
/** A part that takes longer has failed; the others are measured all the same. */
const PART_TIME_LIMIT_MS = 20 * 60_000;

async function measure(scope: Scope, options: Options): Promise<number> {
  const {only, json, write, given} = options;
  if (only === 'eviction') return measureEviction(options, say);
  if (given['trace'] !== undefined) throw new Error('--trace goes with --only eviction');
  const parts = wantedParts(only);
  const tools = await findTools(scope, [...new Set(parts.flatMap((part) => part.tools))], say);
  say('building backref');
  await scope.run(process.execPath, [BUILD], {timeout: BUILD_TIMEOUT_MS});

  const measured: Record<string, Measurement> = {};
  let isSound = true;
  for (const part of parts) {
    try {
      const measurement = await measurePart(part, scope, tools);
      measured[part.name] = measurement;
      if (!json) process.stdout.write(`${part.name}: ${textOf(part, measurement)}\n\n`);
      if (write) await keep(part.name, measurement);
      if (!reportPart(part, measurement)) isSound = false;
    } catch (error) {
      say(`${part.name}: ${error instanceof Error ? error.message : error}`);
      isSound = false;
    }
  }
  if (json) process.stdout.write(`${JSON.stringify(measured, undefined, 2)}\n`);
  return isSound ? 0 : 1;
}

/** @throws Error for a name that no part has */
function wantedParts(only: string): readonly AnyPart[] {
  if (only === '') return PARTS;
  return only.split(',').map((name) => {
    const part = PARTS.find((one) => one.name === name);
    if (!part) throw new Error(`--only takes ${NAMES.join(', ')} or eviction, not "${name}"`);
    return part;
  });
}

/** @throws Error when a part fails, or is not done in time; nothing that it has started is left */
async function measurePart(part: AnyPart, scope: Scope, tools: Toolbox): Promise<Measurement> {
  say(`${part.name}: part ${NAMES.indexOf(part.name) + 1} of ${NAMES.length}`);
  const own = await scope.child();
  const began = Date.now();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new Error(`not done within ${PART_TIME_LIMIT_MS / 60_000} minutes`)),
    PART_TIME_LIMIT_MS,
  );
  try {
    const measurement = await Promise.race([measureAndProfile(part, own, tools), late.promise]);
    say(`${part.name}: done after ${Math.round((Date.now() - began) / 1000)} s`);
    return measurement;
  } finally {
    clearTimeout(timer);
    await own.end();
  }
}

async function measureAndProfile(part: AnyPart, scope: Scope, tools: Toolbox): Promise<Measurement> {
  const versions = await versionsOf(scope, part.tools, tools);
  const results = await part.measure(scope, tools, say);
  const {targets} = part.report(results, versions);
  const profiles: Record<string, Profile> = {};
  for (const load of missedLoads(targets)) {
    say(`profile: ${load}`);
    const profile = await part.profile?.(load, scope, tools);
    if (profile) profiles[load] = profile;
  }
  return {...hereAndNow(), versions, results, profiles};
}

const missedLoads = (targets: readonly Target[]): Set<string> =>
  new Set(targets.flatMap(({isMet, load}) => (isMet === false && load !== undefined ? [load] : [])));

const textOf = (part: AnyPart, measurement: Measurement): string =>
  partText(part.name, measurement, part.report(measurement.results, measurement.versions));

async function keep(name: string, measurement: Measurement): Promise<void> {
  const measurements = {...(await readMeasurements()), [name]: measurement};
  await writeMeasurements(measurements);
  await writePages(measurements);
}

/** Prints the faults and the missed targets. @returns true if there were no faults */
function reportPart(part: AnyPart, {results, versions}: Measurement): boolean {
  const {faults, targets} = part.report(results, versions);
  for (const fault of faults) say(`${part.name}: backref: ${fault}`);
  for (const {work, beside, aim, figure, isMet} of targets)
    if (isMet === false)
      say(`${part.name}: target missed: ${work}${beside && `, beside ${beside}`}: ${figure}, not ${aim}`);
  return faults.length === 0;
}

/** The servers that are compared, with the versions that are installed. */
async function versionsOf(scope: Scope, wanted: readonly Tool[], tools: Toolbox): Promise<Versions> {
  const version = (tool: Tool) => (wanted.includes(tool) ? tools.version(tool) : '');
  return {
    backref: 'backref',
    'docker-registry': `docker-registry ${version('docker-registry')}`,
    distribution: `distribution ${version('registry')}`,
    zot: `zot ${await zotVersion(scope)}, on demand`,
    nginx: `nginx ${version('nginx')}, static files`,
  };
}

await runCommand({name: 'bench', usage: USAGE, timeLimit: TIME_LIMIT_MS, options: ['trace']}, measure);
