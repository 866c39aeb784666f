import {runCommand, say} from '../rig/command.ts';
import {installNode, packProject} from '../rig/npm.ts';
import type {Scope} from '../rig/scope.ts';
import {type Case, casesOf, install, linkCase, oldNodeCase} from './cases.ts';

const USAGE = `Packs this project, installs the package into an empty folder on the oldest and on the newest Node that it promises,
and uses it there: the command and the library. npm fetches those Nodes and the dependencies.

  --only TEXT   only the cases whose name contains TEXT
  --json        the results as JSON instead of lines
`;
/** Milliseconds; most of it is for npm's downloads. */
const TIME_LIMIT = 30 * 60_000;

/** Versions of the npm package `node`: the oldest that "engines" of package.json promises, and the newest there is. */
const PROMISED = ['22.21.0', 'latest'];
const TOO_OLD = '20.x';

interface InstallationOutcome {
  name: string;
  /** undefined when the case passed. */
  fault: string | undefined;
}

async function attempt(scope: Scope, name: string, run: Case['run']): Promise<InstallationOutcome> {
  const own = await scope.child();
  try {
    await run(own);
    return {name, fault: undefined};
  } catch (error) {
    return {name, fault: error instanceof Error ? error.message : String(error)};
  } finally {
    await own.end();
  }
}

/** Installs the package on one Node. @returns its cases. */
async function casesOn(scope: Scope, range: string, tarball: string, tooOld: string): Promise<Case[]> {
  const node = await installNode(scope, range);
  const version = (await scope.run(`${node}/node`, ['--version'])).trim();
  const installation = await install(scope, tarball, node);
  return [...casesOf(installation), oldNodeCase(installation, tooOld), linkCase(node)].map(({name, run}) => ({
    name: `${name} (${version})`,
    run,
  }));
}

async function run(scope: Scope, only: string): Promise<InstallationOutcome[]> {
  const tarball = await packProject(scope);
  const tooOld = await installNode(scope, TOO_OLD);
  const outcomes: InstallationOutcome[] = [];
  for (const range of PROMISED) {
    for (const {name, run} of await casesOn(scope, range, tarball, tooOld)) {
      if (!name.includes(only)) continue;
      const outcome = await attempt(scope, name, run);
      say(`${outcome.fault === undefined ? '✓' : '✗'} ${[name, outcome.fault].filter(Boolean).join(': ')}`);
      outcomes.push(outcome);
    }
  }
  return outcomes;
}

await runCommand({name: 'installation', usage: USAGE, timeLimit: TIME_LIMIT}, async (scope, {only, json}) => {
  const outcomes = await run(scope, only);
  const failed = outcomes.filter(({fault}) => fault !== undefined).length;
  const passed = outcomes.length - failed;
  if (json) process.stdout.write(`${JSON.stringify({outcomes, passed, failed}, undefined, 2)}\n`);
  say(`${passed} cases passed\n${failed} cases failed`);
  return failed > 0 ? 1 : 0;
});
