import {type Options, runCommand, say} from '../rig/command.ts';
import type {Scope} from '../rig/scope.ts';
import {runSteps} from './run.ts';
import {createTally} from './tally.ts';

const USAGE = `Runs a real server between real clients and failing upstreams, on a failing disk, with a clock that jumps, and kills
it again and again. Checks every promise of docs/reliability.md after each fault. Exits with 1 if one is broken.

  --seed N      the seed from which all steps follow (default: 1)
  --minutes N   how long to run; without it, until the process was killed 200 times, at least 10 minutes
  --only TEXT   only the steps whose name contains TEXT
  --json        the results as JSON instead of a text
  --write       write the results into docs/reliability.md (of a whole run without violations, and not when CI is set)
`;

/** Milliseconds; some of it is for building the tools, once. */
const TIME_LIMIT = 45 * 60_000;
const WHOLE_RUN = {duration: 10 * 60_000, kills: 200};

async function run(scope: Scope, {only, given}: Options): Promise<number> {
  const {seed = '1', minutes} = given;
  const length = minutes === undefined ? WHOLE_RUN : {duration: Number(minutes) * 60_000, kills: 0};
  if (!(length.duration > 0)) throw new Error('--minutes must be a number above 0');
  const tally = createTally(({promise, text, step}) =>
    say(`VIOLATION (${promise}) in step ${step}: ${text}`),
  );
  const lacking = await runSteps(scope, tally, {seed, ...length, only, say});
  for (const [name, count] of [...tally.faults, ...tally.counts]) say(`${name}: ${count}`);
  for (const each of lacking) say(`NOT RUN: ${each}`);
  return tally.violations.length > 0 ? 1 : 0;
}

await runCommand({name: 'chaos', usage: USAGE, timeLimit: TIME_LIMIT, options: ['seed', 'minutes']}, run);
