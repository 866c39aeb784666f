import {type Options, runCommand, say} from '../rig/command.ts';
import {writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {countChecks, forMachines, tables, trail} from './report.ts';
import {runSteps} from './run.ts';
import {createTally} from './tally.ts';

const USAGE = `Runs a real server between real clients and failing upstreams, on a failing disk, with a clock that jumps, and kills
it again and again. Checks every promise of docs/reliability.md after each fault. Exits with 1 if one is broken.

  --seed N      the seed from which all steps follow (default: 1)
  --minutes N   how long to run; without it, at least 10 minutes and until the process was killed 200 times
  --only TEXT   only the steps whose name contains TEXT
  --json        the results as JSON instead of tables
  --write       write the tables into docs/reliability.md (of a whole run without violations, and not when CI is set)
`;

/** Milliseconds; some of it is for building the tools, once. */
const TIME_LIMIT = 60 * 60_000;
const WHOLE_RUN = {duration: 10 * 60_000, kills: 200};

async function run(scope: Scope, {only, json, write, given}: Options): Promise<number> {
  const {seed = '1', minutes} = given;
  const length = minutes === undefined ? WHOLE_RUN : {duration: Number(minutes) * 60_000, kills: 0};
  if (!(length.duration > 0)) throw new Error('--minutes must be a number above 0');
  const tally = createTally(({promise, text, step}) =>
    say(`VIOLATION (${promise}) in step ${step}: ${text}`),
  );
  const began = Date.now();
  const lacking = await runSteps(scope, tally, {seed, ...length, only, say});
  const result = {seed, took: Date.now() - began, lacking, tally};
  const {passed, failed} = countChecks(result);
  const inCi = Boolean(process.env['CI']);
  process.stdout.write(`${json ? JSON.stringify(forMachines(result), undefined, 2) : tables(result)}\n`);
  const isWhole = minutes === undefined && only === '' && failed === 0 && lacking.length === 0;
  if (write && isWhole && !inCi) await writeSection('docs/reliability.md', 'chaos', tables(result));
  if (failed > 0) say(trail(result));
  for (const each of lacking) say(`NOT INJECTED: ${each}`);
  say(`${passed} checks passed\n${failed} checks failed`);
  return failed > 0 || (inCi && lacking.length > 0) ? 1 : 0;
}

await runCommand({name: 'chaos', usage: USAGE, timeLimit: TIME_LIMIT, options: ['seed', 'minutes']}, run);
