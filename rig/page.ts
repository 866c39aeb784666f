import {readFile, writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';

/** Pages with generated sections, relative to the project. */
export type GeneratedPage =
  | 'README.md'
  | 'docs/clients.md'
  | 'docs/conformance.md'
  | 'docs/performance.md'
  | 'docs/reliability.md';

/**
 * Replaces the text of a page between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
 * @throws Error when the page does not have the two markers, in this order.
 */
export async function writeSection(page: GeneratedPage, name: string, text: string): Promise<void> {
  const path = fileURLToPath(new URL(`../${page}`, import.meta.url));
  const before = await readFile(path, 'utf8');
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const from = before.indexOf(begin);
  const to = before.indexOf(end, from);
  if (from < 0 || to < 0)
    throw new Error(`${page} does not have the lines ${begin} and ${end}, between which the table goes`);
  await writeFile(path, `${before.slice(0, from + begin.length)}\n${text.trim()}\n${before.slice(to)}`);
}

/** A Markdown table; the first row is its head. Columns after the first are aligned as `align` says. */
export function table(rows: readonly (readonly string[])[], align: 'left' | 'right' = 'left'): string {
  const [head = [], ...body] = rows;
  const rule = head.map((_, column) => (column > 0 && align === 'right' ? '---:' : '---'));
  return [head, rule, ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
