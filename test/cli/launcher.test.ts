import {copyFile, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {startProgram} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const LAUNCHER = 'bin/backref.js';

const packageJson = async () => JSON.parse(await readFile('package.json', 'utf8'));

/** Runs a copy of the launcher that has nothing beside it to import, as a Node of this version would. */
async function launch(t: ExecutionContext, version: string) {
  const folder = await createFolder(t);
  await copyFile(LAUNCHER, join(folder, 'backref.js'));
  await writeFile(join(folder, 'package.json'), '{"type": "module"}');
  const versions = `{value: {...process.versions, node: '${version}'}}`;
  const disguise = `data:text/javascript,Object.defineProperty(process, 'versions', ${versions})`;
  const command = startProgram(t, process.execPath, ['--import', disguise, join(folder, 'backref.js')], {
    cwd: folder,
  });
  return {code: await command.ended, ...command.printed()};
}

test('on an older Node the command prints one sentence with the versions of package.json, and imports nothing', async (t) => {
  const {engines} = await packageJson();
  for (const version of ['14.21.3', '20.20.2', '22.20.0', '23.11.1', '24.4.1']) {
    const {code, stdout, stderr} = await launch(t, version);
    t.is(code, 1, version);
    t.is(stdout, '');
    t.is(stderr, `backref needs Node ${engines.node}, and this is ${version}: install a newer Node.\n`);
  }
});

test('on a Node that package.json supports the command loads the rest', async (t) => {
  for (const version of ['22.21.0', '22.99.0', '24.5.0', '25.0.0', '26.10.0'])
    t.regex((await launch(t, version)).stderr, /ERR_MODULE_NOT_FOUND.*dist\/cli\/main\.js/s, version);
});

test('the command of package.json is the launcher, and runs the sources in a checkout', async (t) => {
  const {bin, version} = await packageJson();
  t.is(bin.backref, LAUNCHER);
  const command = startProgram(t, process.execPath, [LAUNCHER, '--version'], {cwd: '.'});
  t.is(await command.ended, 0);
  t.deepEqual(command.printed(), {stdout: `${version}\n`, stderr: ''});
});
