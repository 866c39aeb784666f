import {appendFile, chmod, mkdir, readdir, readFile, rename, stat, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {compiledFolder, runCompiled} from '../../src/cli/compiled.ts';
import {createFolder} from '../support/folder.ts';

const SCRIPT = `(function (exports, require, module, __filename, __dirname) {
  exports.answer = () => [require('node:path').basename(__filename), 42];
})`;

/** A script, and a folder for its compiled code that is not there yet. */
async function createScript(t: ExecutionContext) {
  const root = await createFolder(t);
  const [file, folder] = [join(root, 'script.cjs'), join(root, 'caches', 'backref')];
  await writeFile(file, SCRIPT);
  const run = (where: string | undefined = folder) => {
    const {exports, ...compiled} = runCompiled(file, where);
    return {...compiled, answer: (exports as {answer(): unknown}).answer()};
  };
  return {root, file, folder, run, stored: async () => join(folder, (await readdir(folder))[0] ?? '')};
}

const ANSWER = ['script.cjs', 42];

test('a script runs with the code that an earlier run has stored', async (t) => {
  const {run, stored} = await createScript(t);
  const first = run();
  t.deepEqual(first.answer, ANSWER);
  t.false(first.wasStored);
  await first.store();
  const second = run();
  t.deepEqual(second.answer, ANSWER);
  t.true(second.wasStored);
  const before = await readFile(await stored());
  await second.store();
  t.deepEqual(await readFile(await stored()), before);
});

test('code is kept in one file that only its user can read, in a folder that only its user can enter', async (t) => {
  const {run, folder, stored} = await createScript(t);
  await run().store();
  await run().store();
  t.is((await readdir(folder)).length, 1);

  t.is((await stat(folder)).mode & 0o777, 0o700);
  t.is((await stat(await stored())).mode & 0o777, 0o600);
});

test('code of another script of the same length is not used, and is replaced', async (t) => {
  const {run, file} = await createScript(t);
  await run().store();
  await writeFile(file, SCRIPT.replace('42', '43'));
  const changed = run();
  t.deepEqual(changed.answer, ['script.cjs', 43]);
  t.false(changed.wasStored);
  await changed.store();
  t.true(run().wasStored);
});

test('code that is damaged or cut off is not used', async (t) => {
  const {run, stored} = await createScript(t);
  await run().store();
  const path = await stored();
  const whole = await readFile(path);
  const damaged = Buffer.from(whole);
  damaged.writeUInt8(damaged.readUInt8(damaged.length - 9) ^ 1, damaged.length - 9);
  for (const bytes of [damaged, whole.subarray(0, -1), whole.subarray(0, 8), Buffer.alloc(0)]) {
    await writeFile(path, bytes);
    t.false(run().wasStored);
    t.deepEqual(run().answer, ANSWER);
  }
  await appendFile(path, whole);
  t.true(run().wasStored);
});

test('code that others could write, and what is not a file, is not used', async (t) => {
  const {run, stored, root} = await createScript(t);
  await run().store();
  const path = await stored();
  for (const mode of [0o620, 0o602]) {
    await chmod(path, mode);
    t.false(run().wasStored);
  }
  await chmod(path, 0o600);
  t.true(run().wasStored);
  await rename(path, join(root, 'elsewhere'));
  await mkdir(path);
  t.false(run().wasStored);
});

test('a folder that cannot be made costs only the time', async (t) => {
  const {run, file} = await createScript(t);
  const script = run(join(file, 'below-a-file'));
  t.deepEqual(script.answer, ANSWER);
  await t.notThrowsAsync(script.store());
  t.false(run(join(file, 'below-a-file')).wasStored);
});

test('without a folder nothing is stored', async (t) => {
  const {file, folder} = await createScript(t);
  await runCompiled(file, undefined).store();
  await t.throwsAsync(readdir(folder), {code: 'ENOENT'});
});

test('the folder is that of XDG_CACHE_HOME if it is absolute, else that of the home, if there is one', (t) => {
  const home = () => '/home/ci';
  t.is(compiledFolder({XDG_CACHE_HOME: '/caches'}, home), '/caches/backref');
  for (const XDG_CACHE_HOME of ['', 'caches'])
    t.is(compiledFolder({XDG_CACHE_HOME}, home), '/home/ci/.cache/backref');
  t.is(compiledFolder({}, home), '/home/ci/.cache/backref');
  const homeless = () => {
    throw new Error('this user has no home');
  };
  t.is(compiledFolder({}, homeless), undefined);
  t.is(compiledFolder({NODE_DISABLE_COMPILE_CACHE: '1', XDG_CACHE_HOME: '/caches'}, home), undefined);
});
