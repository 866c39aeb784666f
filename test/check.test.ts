import {readFile} from 'node:fs/promises';
import test from 'ava';
import {plantedCopy, runTool, SOURCES} from './support/planted.ts';

const scripts = async (): Promise<Record<string, string>> =>
  JSON.parse(await readFile('package.json', 'utf8')).scripts;

interface Planted {
  script: string;
  file: string;
  text: string;
  said: RegExp;
  /** The folders beside the fault; default `src/oci`, which imports nothing outside of itself. */
  sources?: readonly string[];
  args?: readonly string[];
}

/** One fault for each part of `npm run check`, and what the part says of it. */
const PLANTED: Planted[] = [
  {
    script: 'lint',
    file: 'src/oci/planted.ts',
    text: 'export const planted = 1 == 2;\n',
    said: /noDoubleEquals/,
  },
  {
    script: 'lint',
    file: 'src/oci/planted.ts',
    text: 'export const   planted = 1;\n',
    said: /planted\.ts format/,
  },
  {
    script: 'lint',
    file: 'src/oci/planted.ts',
    text: `export function planted(): number {\n  let lines = 0;\n${'  lines += 1;\n'.repeat(60)}  return lines;\n}\n`,
    said: /noExcessiveLinesPerFunction/,
  },
  {
    script: 'lint',
    file: 'src/oci/planted.ts',
    text: Array.from({length: 301}, (_, line) => `export const planted${line} = ${line};\n`).join(''),
    said: /noExcessiveLinesPerFile/,
  },
  {
    script: 'types',
    file: 'src/oci/planted.ts',
    text: "export const planted: number = 'one';\n",
    said: /TS2322/,
  },
  {
    script: 'unused',
    file: 'src/oci/planted.ts',
    text: 'export const planted = 1;\n',
    said: /planted\.ts/,
    // What is used is known only from everything.
    sources: SOURCES,
  },
  {
    script: 'test',
    file: 'test/planted.test.ts',
    text: "import test from 'ava';\ntest('planted', (t) => t.fail());\n",
    said: /Test failed via `t\.fail\(\)`/,
    sources: [],
    args: ['test/planted.test.ts'],
  },
];

for (const {script, file, text, said, sources = ['src/oci'], args: further = []} of PLANTED)
  test(`npm run ${script} fails on a fault: ${text.trim().split('\n').at(-1)}`, async (t) => {
    const words = ((await scripts())[script] ?? '').split(' ');
    // Variables stand before the tool.
    const [tool = '', ...args] = words.filter((word) => !/^[A-Z_]+=/.test(word));
    const copy = await plantedCopy(t, sources, {[file]: text});
    const {code, output} = await runTool(copy, tool, [...args, ...further]);
    t.not(code, 0);
    t.regex(output, said);
  });

test('npm run check runs every one of these parts, and stops at the first that fails', async (t) => {
  const parts = ((await scripts())['check'] ?? '').split(' && ');
  t.deepEqual(parts, ['npm run lint', 'npm run types', 'npm run unused', 'npm test']);
});
