import {readFile, writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';

const README = fileURLToPath(new URL('../README.md', import.meta.url));

/**
 * Replaces what stands in README.md between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
 * @throws Error when the two markers are not there, in this order.
 */
export async function writeSection(name: string, text: string): Promise<void> {
  const readme = await readFile(README, 'utf8');
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end, from);
  if (from < 0 || to < 0)
    throw new Error(`README.md has no lines ${begin} and ${end} to write the table between`);
  await writeFile(README, `${readme.slice(0, from + begin.length)}\n${text.trim()}\n${readme.slice(to)}`);
}

/** A Markdown table; the first row is its head. Columns after the first are aligned as `align` says. */
export function table(rows: readonly (readonly string[])[], align: 'left' | 'right' = 'left'): string {
  const [head = [], ...body] = rows;
  const rule = head.map((_, column) => (column > 0 && align === 'right' ? '---:' : '---'));
  return [head, rule, ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
