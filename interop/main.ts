import {parseArgs} from 'node:util';
import {runPart, toolsOf} from './part.ts';
import {matching} from './parts.ts';
import {writeSection} from './readme.ts';
import {count, type Row, tables} from './report.ts';
import {createScope, endOnSignal, type Scope} from './scope.ts';
import {findTools} from './tools.ts';

const USAGE = `Pulls a multi-arch image with real clients through backref from real registries, and looks through
backref for what real tools attached to an image there.

  --only TEXT   only the clients and tools whose name contains TEXT
  --json        the results as JSON instead of tables
  --write       write the tables into README.md (of a whole run, and not when CI is set)
`;

/** Milliseconds; most of it is for building the tools, which is done once. */
const TIME_LIMIT = 45 * 60_000;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Result {
  section: string;
  cases: readonly string[];
  rows: Row[];
}

async function run(scope: Scope, only: string): Promise<Result[]> {
  const parts = matching(only);
  const tools = await findTools(scope, toolsOf(parts), say);
  const results: Result[] = [];
  for (const part of parts) {
    const {section, cases} = part;
    results.push({section, cases, rows: await runPart(scope, part, tools, say)});
  }
  return results;
}

async function main(): Promise<number> {
  const {values} = parseArgs({
    options: {
      only: {type: 'string', default: ''},
      json: {type: 'boolean', default: false},
      write: {type: 'boolean', default: false},
      help: {type: 'boolean', default: false},
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const scope = await createScope();
  endOnSignal(scope, TIME_LIMIT);
  try {
    const results = await run(scope, values.only);
    const {passed, failed} = count(results.flatMap(({rows}) => rows));
    const unrun = results.flatMap(({rows, cases}) =>
      rows.filter((row) => row.missing).map(() => cases.length),
    );
    const inCi = Boolean(process.env['CI']);
    const texts = results.map(({section, rows, cases}) => ({section, text: tables(rows, cases)}));
    const json = () => JSON.stringify({results, passed, failed}, undefined, 2);
    process.stdout.write(`${values.json ? json() : texts.map(({text}) => text).join('\n\n')}\n`);
    const whole = values.only === '' && unrun.length === 0;
    if (values.write && whole && !inCi) {
      for (const {section, text} of texts) await writeSection(section, text);
    }
    if (unrun.length > 0)
      say(`${unrun.reduce((sum, cases) => sum + cases)} cases not run for want of a tool`);
    say(`${passed} cases passed\n${failed} cases failed`);
    return failed > 0 || (inCi && unrun.length > 0) ? 1 : 0;
  } finally {
    await scope.end();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  say(`interop: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
