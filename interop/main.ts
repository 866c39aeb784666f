import {runCommand, say} from '../rig/command.ts';
import {writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {findTools} from '../rig/tools.ts';
import {runPart, toolsOf} from './part.ts';
import {matching} from './parts.ts';
import {type ClientRow, count, tables} from './report.ts';

const USAGE = `Pulls a multi-arch image with real clients through backref from real registries, looks through backref for
what real tools attached to an image there, and pushes and attaches with real tools through backref.

  --only TEXT   only the clients and tools whose name contains TEXT
  --json        the results as JSON instead of tables
  --write       write the tables into docs/clients.md (of a whole run, and not when CI is set)
`;

/** Milliseconds; most of it is for building the tools, once. */
const TIME_LIMIT = 45 * 60_000;

interface PartResult {
  section: string;
  cases: readonly string[];
  rows: ClientRow[];
}

async function run(scope: Scope, only: string): Promise<PartResult[]> {
  const parts = matching(only);
  const tools = await findTools(scope, toolsOf(parts), say);
  const results: PartResult[] = [];
  for (const part of parts) {
    const {section, cases} = part;
    results.push({section, cases, rows: await runPart(scope, part, tools, say)});
  }
  return results;
}

await runCommand(
  {name: 'interop', usage: USAGE, timeLimit: TIME_LIMIT},
  async (scope, {only, json, write}) => {
    const results = await run(scope, only);
    const {passed, failed} = count(results.flatMap(({rows}) => rows));
    const unrun = results.flatMap(({rows, cases}) =>
      rows.filter((row) => row.missing).map(() => cases.length),
    );
    const inCi = Boolean(process.env['CI']);
    const texts = results.map(({section, rows, cases}) => ({section, text: tables(rows, cases)}));
    const asJson = () => JSON.stringify({results, passed, failed}, undefined, 2);
    process.stdout.write(`${json ? asJson() : texts.map(({text}) => text).join('\n\n')}\n`);
    const whole = only === '' && unrun.length === 0;
    if (write && whole && !inCi) {
      for (const {section, text} of texts) await writeSection('docs/clients.md', section, text);
    }
    if (unrun.length > 0)
      say(`${unrun.reduce((sum, cases) => sum + cases)} cases not run because a tool is missing`);
    say(`${passed} cases passed\n${failed} cases failed`);
    return failed > 0 || (inCi && unrun.length > 0) ? 1 : 0;
  },
);
