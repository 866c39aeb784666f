import {readdir, readFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import test from 'ava';

const PROJECT = resolve(import.meta.dirname, '../..');

/** The files that a page names in backquotes: whole paths, paths below `src`, or bare names. */
async function namedIn(page: string): Promise<string[]> {
  const text = await readFile(join(PROJECT, page), 'utf8');
  return [...new Set(text.matchAll(/`((?:[\w-]+\/)*[\w-]+\.(?:ts|yaml|md))`/g).map(([, path = '']) => path))];
}

for (const page of ['docs/architecture.md', 'CONTRIBUTING.md'])
  test(`every file that ${page} names is there`, async (t) => {
    const entries = await readdir(PROJECT, {recursive: true});
    const files = entries.filter((path) => !path.startsWith('node_modules'));
    const named = await namedIn(page);
    t.true(named.length > 0);
    for (const name of named)
      t.true(
        files.some((path) => path === name || path.endsWith(`/${name}`)),
        name,
      );
  });

const backquoted = (text: string): string[] =>
  [...text.matchAll(/`((?:[\w-]+\/)*[\w-]+\.(?:ts|md)|[\w/-]+\/)`/g)].map(([, path = '']) => path);

const sectionOf = (text: string, heading: string): string =>
  text.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';

test('the architecture page answers each of a newcomer’s questions with at most two places', async (t) => {
  const text = await readFile(join(PROJECT, 'docs/architecture.md'), 'utf8');
  const rows = sectionOf(text, "A newcomer's questions")
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .slice(1);
  t.true(rows.length >= 8);
  for (const row of rows) {
    const places = new Set(backquoted(row));
    t.true(places.size === 1 || places.size === 2, row);
  }
});

test('the architecture page shows five walks, none of which enters a file twice', async (t) => {
  const text = await readFile(join(PROJECT, 'docs/architecture.md'), 'utf8');
  const [, ...walks] = sectionOf(text, 'Five walks').split('\n### ');
  t.is(walks.length, 5);
  for (const walk of walks) {
    const steps = backquoted(walk.slice(walk.indexOf('1. ')));
    t.true(steps.length >= 5, walk);
    t.deepEqual(steps, [...new Set(steps)], walk);
  }
});
