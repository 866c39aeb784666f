import {CASES, type Outcome} from './cases.ts';
import {table} from './readme.ts';

/** What became of one client before one upstream. */
export interface Row {
  /** With version. */
  upstream: string;
  /** With version where it is known. */
  client: string;
  outcomes: Outcome[];
  /** Why none of the cases was run: the tool that is missing. */
  missing: string | undefined;
}

/** The tables, one for each upstream, clients by cases, as Markdown. */
export function tables(rows: readonly Row[]): string {
  const upstreams = [...new Set(rows.map(({upstream}) => upstream))];
  return upstreams.map((upstream) => tableOf(upstream, rows)).join('\n\n');
}

function tableOf(upstream: string, rows: readonly Row[]): string {
  const own = rows.filter((row) => row.upstream === upstream);
  return table([
    [`before ${upstream}`, ...CASES],
    ...own.map((row) => [row.client, ...CASES.map((name) => cell(row, name))]),
  ]);
}

function cell({outcomes, missing}: Row, name: string): string {
  if (missing && name === CASES[0]) return `not run: ${oneLine(missing)}`;
  const outcome = outcomes.find((each) => each.case === name);
  if (!outcome) return 'not run';
  return outcome.fault === undefined ? '✓' : oneLine(outcome.fault);
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').replaceAll('|', '\\|').slice(0, 200);

/** How many cases passed and failed; a client whose tool is missing counts in neither. */
export function count(rows: readonly Row[]): {passed: number; failed: number} {
  const outcomes = rows.flatMap((row) => row.outcomes);
  const failed = outcomes.filter(({fault}) => fault !== undefined).length;
  return {passed: outcomes.length - failed, failed};
}
