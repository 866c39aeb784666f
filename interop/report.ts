import {table} from '../rig/page.ts';

/** Of one case. */
export interface CaseOutcome {
  case: string;
  /** Why it failed; undefined when it passed. */
  fault: string | undefined;
  /** For a case that passed because nothing can be found: why. */
  note?: string;
  ms: number;
  /** Requests that reached the upstream. */
  asked: number;
}

/** The result of one client with one upstream. */
export interface ClientRow {
  /** Including the version; empty without an upstream. */
  upstream: string;
  /** Including the version, if known. */
  client: string;
  outcomes: CaseOutcome[];
  /** The missing tool, when no case was run. */
  missing: string | undefined;
}

/** The tables, one for each upstream, clients by cases, as Markdown. */
export function tables(rows: readonly ClientRow[], cases: readonly string[]): string {
  const upstreams = [...new Set(rows.map(({upstream}) => upstream))];
  return upstreams.map((upstream) => tableOf(upstream, rows, cases)).join('\n\n');
}

function tableOf(upstream: string, rows: readonly ClientRow[], cases: readonly string[]): string {
  const own = rows.filter((row) => row.upstream === upstream);
  return table([
    [upstream === '' ? '' : `in front of ${upstream}`, ...cases],
    ...own.map((row) => [row.client, ...cases.map((name, column) => cell(row, name, column))]),
  ]);
}

function cell({outcomes, missing}: ClientRow, name: string, column: number): string {
  if (missing && column === 0) return `not run: ${oneLine(missing)}`;
  const outcome = outcomes.find((each) => each.case === name);
  // A contender reports every case that it has.
  if (!outcome) return missing ? 'not run' : '–';
  return outcome.fault === undefined ? (outcome.note ?? '✓') : oneLine(outcome.fault);
}

/** An outcome, for the progress output. */
export function outcomeText({case: name, fault, note, ms, asked}: CaseOutcome): string {
  const result = fault === undefined ? `✓${note ? ` (${note})` : ''}` : `✗ ${fault}`;
  return `${name} ${result} (${ms} ms, ${asked} upstream)`;
}

/** The text for anything that was thrown. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').replaceAll('|', '\\|').slice(0, 200);

/** How many cases passed and failed; a client whose tool is missing counts in neither. */
export function count(rows: readonly ClientRow[]): {passed: number; failed: number} {
  const outcomes = rows.flatMap((row) => row.outcomes);
  const failed = outcomes.filter(({fault}) => fault !== undefined).length;
  return {passed: outcomes.length - failed, failed};
}
