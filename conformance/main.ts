import {fileURLToPath} from 'node:url';
import {type Options, runCommand, say} from '../rig/command.ts';
import {writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {findTools} from '../rig/tools.ts';
import {attempt} from './attempt.ts';
import {countFaulty, forMachines, outcomeText, type RunOutcome, tables} from './report.ts';
import {matching} from './runs.ts';

const USAGE = `Runs the conformance suite of the OCI distribution-spec on backref in each of its modes, and on other registries.

  --only NAME   one run, or all whose name contains NAME
  --json        the results as JSON instead of tables
  --write       write the tables into docs/conformance.md (of a whole run without faults, and not when CI is set)

The suite's reports stay in reports/conformance.
`;
const REPORTS = fileURLToPath(new URL('../reports/conformance', import.meta.url));
/** Milliseconds; most of it is for building the tools, once. */
const TIME_LIMIT = 30 * 60_000;

async function run(scope: Scope, {only, json, write}: Options): Promise<number> {
  const runs = matching(only);
  const tools = await findTools(
    scope,
    [...new Set(['conformance' as const, ...runs.flatMap(({server}) => server.tools)])],
    say,
  );
  const suite = tools.version('conformance');
  const outcomes: RunOutcome[] = [];
  for (const each of runs) {
    const outcome = await attempt(scope, each, {tools, reports: REPORTS, earlier: outcomes});
    outcomes.push(outcome);
    say(outcomeText(outcome));
  }
  const faulty = countFaulty(outcomes);
  const text = tables(outcomes);
  const [passed, failed] = [outcomes.length - faulty, faulty];
  const asJson = () => JSON.stringify({suite, runs: outcomes.map(forMachines), passed, failed}, undefined, 2);
  process.stdout.write(`${json ? asJson() : text}\n`);
  if (write && only === '' && faulty === 0 && !process.env['CI'])
    await writeSection('docs/conformance.md', 'conformance', text);
  say(`reports: ${REPORTS}\n${passed} runs passed\n${failed} runs failed`);
  return faulty > 0 ? 1 : 0;
}

await runCommand({name: 'conformance', usage: USAGE, timeLimit: TIME_LIMIT}, run);
