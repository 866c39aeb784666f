import {parseArgs} from 'node:util';
import {CASES, runCases} from './cases.ts';
import {CLIENTS} from './clients/all.ts';
import {buildImage, pushImage} from './image.ts';
import {inParallel} from './parallel.ts';
import {writeSection} from './readme.ts';
import {count, type Row, tables} from './report.ts';
import {createScope, endOnSignal, type Scope} from './scope.ts';
import {findTools, type Tool} from './tools.ts';
import {startRegistry, UPSTREAMS} from './upstreams.ts';

const USAGE = `Pulls a multi-arch image with real clients through backref from real registries.

  --only TEXT   only the clients whose name contains TEXT
  --json        the results as JSON instead of tables
  --write       write the tables into README.md (of a whole run, and not when CI is set)
`;

/** An image with OCI media types and the one-component name of Docker Hub, and one with Docker's own types. */
const IMAGES = [buildImage('library/hello', '1', 'oci'), buildImage('org/app', '1', 'docker')];
const TIME_LIMIT = 15 * 60_000;
/** As many pulls at once as a small machine has cores. */
const AT_ONCE = 2;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function run(scope: Scope, only: string): Promise<Row[]> {
  const clients = CLIENTS.filter(({name}) => name.toLowerCase().includes(only.toLowerCase()));
  if (clients.length === 0) {
    throw new Error(`no client is called "${only}"; there are: ${CLIENTS.map(({name}) => name).join('; ')}`);
  }
  const wanted = new Set<Tool>([...UPSTREAMS.map(({tool}) => tool), ...clients.flatMap(({tools}) => tools)]);
  const tools = await findTools(scope, [...wanted], say);

  const rows: Row[] = [];
  const jobs: (() => Promise<void>)[] = [];
  for (const {name, tool} of UPSTREAMS) {
    const upstream = tools.missing.has(tool) ? name : `${name} ${tools.version(tool)}`;
    const registry = tools.missing.has(tool) ? undefined : await startRegistry(scope, tools, name);
    for (const image of IMAGES) if (registry) await pushImage(registry.url, image);
    for (const client of clients) {
      const missing = [tool, ...client.tools].find((each) => tools.missing.has(each));
      const version = tools.missing.has(client.tools[0]) ? '' : ` ${tools.version(client.tools[0])}`;
      const row: Row = {
        upstream,
        client: client.name.replace(/^([^,]*)/, `$1${version}`),
        outcomes: [],
        missing: missing && `${missing} is missing: ${tools.missing.get(missing)}`,
      };
      rows.push(row);
      if (missing) say(`${upstream}, ${client.name}: not run, ${row.missing}`);
      if (missing || !registry) continue;
      jobs.push(() =>
        runCases(scope, {
          tools,
          client,
          upstream: registry.url,
          images: IMAGES,
          done(outcome) {
            row.outcomes.push(outcome);
            const result = outcome.fault === undefined ? '✓' : `✗ ${outcome.fault}`;
            say(
              `${upstream}, ${row.client}: ${outcome.case} ${result} (${outcome.ms} ms, ${outcome.asked} upstream)`,
            );
          },
        }),
      );
    }
  }
  await inParallel(AT_ONCE, jobs);
  return rows;
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
    const rows = await run(scope, values.only);
    const {passed, failed} = count(rows);
    const inCi = Boolean(process.env['CI']);
    const missing = rows.filter((row) => row.missing).length;
    process.stdout.write(
      values.json ? `${JSON.stringify({rows, passed, failed}, undefined, 2)}\n` : `${tables(rows)}\n`,
    );
    const whole = values.only === '' && missing === 0;
    if (values.write && whole && !inCi) await writeSection('interop', tables(rows));
    if (missing > 0) say(`${missing * CASES.length} cases not run for want of a tool`);
    say(`${passed} cases passed\n${failed} cases failed`);
    return failed > 0 || (inCi && missing > 0) ? 1 : 0;
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
