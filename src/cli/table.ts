import {printable} from './report.ts';

/** A column of a table for people. */
export interface Column {
  title: string;
  /** Numbers are aligned at their end. */
  align: 'start' | 'end';
}

const GAP = '  ';
/** What a shortened cell shows at least. */
const MIN_WIDTH = 16;

/**
 * Draws a table with a line of titles. When it is wider than the screen, the cells of the first column lose their
 * beginning: of an image's name the end says most.
 * @param columns of the screen; undefined where the table may have any width
 */
export function drawTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width: number | undefined,
): string[] {
  const texts = [columns.map(({title}) => title), ...rows.map((row) => row.map(onOneLine))];
  const widths = columns.map((_, index) => Math.max(...texts.map((row) => row[index]?.length ?? 0)));
  const [first = 0, ...others] = widths;
  const rest = others.reduce((sum, each) => sum + GAP.length + each, 0);
  const room = width === undefined ? first : Math.min(first, Math.max(MIN_WIDTH, width - rest));
  return texts.map((row) =>
    row
      .map((cell, index) => {
        const space = index === 0 ? room : (widths[index] ?? 0);
        const text = shortened(cell, space);
        return columns[index]?.align === 'end' ? text.padStart(space) : text.padEnd(space);
      })
      .join(GAP)
      .trimEnd(),
  );
}

const onOneLine = (text: string): string => printable(text).replaceAll('\n', '?');

const shortened = (text: string, width: number): string =>
  text.length <= width ? text : `…${text.slice(text.length - width + 1)}`;
