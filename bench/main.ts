import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {writeSection} from '../interop/readme.ts';
import {createScope, endOnSignal} from '../interop/scope.ts';
import {findTools} from '../interop/tools.ts';
import {measureCold} from './cold.ts';
import {faults, tables, type Versions} from './report.ts';
import {measureWarm} from './warm.ts';

const USAGE = `Measures backref beside docker-registry and distribution as mirrors, and nginx.

  --only cold|warm  only one half
  --json            the results as JSON instead of tables
  --write           write the tables into README.md (of a whole run)
`;
const TSC = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
/** What `npm run build` builds, and what is published: the sources would need the compiler's memory as well. */
const BUILD = fileURLToPath(new URL('../tsconfig.build.json', import.meta.url));
const TIME_LIMIT = 20 * 60_000;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

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
  const {only, json, write} = values;
  if (!['', 'cold', 'warm'].includes(only)) throw new Error(`--only takes cold or warm, not "${only}"`);

  const scope = await createScope();
  endOnSignal(scope, TIME_LIMIT);
  try {
    const tools = await findTools(scope, ['docker-registry', 'registry', 'nginx', 'wrk'], say);
    const versions: Versions = {
      backref: 'backref',
      'docker-registry': `docker-registry ${tools.version('docker-registry')}`,
      distribution: `distribution ${tools.version('registry')}`,
      nginx: `nginx ${tools.version('nginx')}, static files`,
    };
    say('building backref');
    await scope.run(process.execPath, [TSC, '-p', BUILD]);
    const cold = only === 'warm' ? [] : await measureCold(scope, tools, say);
    const warm = only === 'cold' ? [] : await measureWarm(scope, tools, say);
    const text = tables(cold, warm, versions);
    process.stdout.write(json ? `${JSON.stringify({versions, cold, warm}, undefined, 2)}\n` : `${text}\n`);
    if (write && only === '') await writeSection('bench', text);
    const wrong = faults(cold, warm);
    for (const fault of wrong) say(`backref: ${fault}`);
    return wrong.length > 0 ? 1 : 0;
  } finally {
    await scope.end();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  say(`bench: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
