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
