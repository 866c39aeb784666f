import type {Scope} from '../rig/scope.ts';
import type {Tool, Toolbox} from '../rig/tools.ts';
import {startRegistry, UPSTREAM_TOOLS, type UpstreamName} from '../rig/upstreams.ts';
import {inParallel} from './parallel.ts';
import {type CaseOutcome, type ClientRow, outcomeText} from './report.ts';

/** A registry that runs for a part. */
interface RunningUpstream {
  name: UpstreamName;
  /** `http://host:port` */
  url: string;
}

/** The upstream that one client runs against. */
export interface Before {
  tools: Toolbox;
  /** The table's upstreams, in its order. */
  upstreams: readonly RunningUpstream[];
  /** Called with each case when it is done. */
  done(outcome: CaseOutcome): void;
}

/** The address of an upstream. @throws Error when the table does not have it */
export function urlOf({upstreams}: Pick<Before, 'upstreams'>, name: UpstreamName): string {
  const found = upstreams.find((each) => each.name === name);
  if (found) return found.url;
  throw new Error(`${name} does not run before this table`);
}

/** The only upstream of a table, or the first. @throws Error when the table has none */
export function firstUpstream({upstreams: [first]}: Pick<Before, 'upstreams'>): RunningUpstream {
  if (first) return first;
  throw new Error('no registry runs before this table');
}

/** A client that runs all cases of its part. */
export interface Contender {
  /** Its name in the table; its version is put before the first comma. */
  name: string;
  /** The tools that it needs; the first one's version is shown in the table. */
  tools: readonly [Tool, ...Tool[]];
  run(scope: Scope, before: Before): Promise<void>;
}

/** Tables of the run: contenders by cases. */
export interface Part {
  /** The markers in docs/clients.md that the table stands between. */
  section: string;
  cases: readonly string[];
  /** A table before each of these, most often a single upstream; none for servers that have none. */
  before: readonly (readonly UpstreamName[])[];
  contenders: readonly Contender[];
  /** Puts into each upstream what all contenders need. */
  fill(url: string): Promise<void>;
}

/** As many as a small machine has cores. */
const CONCURRENCY = 2;

/** Every tool that the parts' contenders and upstreams need. */
export function toolsOf(parts: readonly Part[]): Tool[] {
  const tools = parts.flatMap(({before, contenders}) => [
    ...before.flat().map((name) => UPSTREAM_TOOLS[name]),
    ...contenders.flatMap((contender) => contender.tools),
  ]);
  return [...new Set(tools)];
}

/** Runs a part. @returns its rows; a row whose tool is missing has no outcomes. */
export async function runPart(
  scope: Scope,
  part: Part,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ClientRow[]> {
  const rows: ClientRow[] = [];
  const jobs: (() => Promise<void>)[] = [];
  for (const names of part.before) {
    const upstream = names.map((name) => upstreamText(name, tools)).join(' and ');
    const lacking = names.map((name) => UPSTREAM_TOOLS[name]).filter((tool) => tools.missing.has(tool));
    const start = async (name: UpstreamName): Promise<RunningUpstream> => {
      const {url} = await startRegistry(scope, tools, name);
      await part.fill(url);
      return {name, url};
    };
    const upstreams = lacking.length === 0 ? await Promise.all(names.map(start)) : undefined;
    for (const contender of part.contenders) {
      const missing = [...lacking, ...contender.tools].find((each) => tools.missing.has(each));
      const row: ClientRow = {
        upstream,
        client: withVersion(contender, tools),
        outcomes: [],
        missing: missing && `${missing} is missing: ${tools.missing.get(missing)}`,
      };
      rows.push(row);
      if (missing) say(`${captionOf(row)}: not run, ${row.missing}`);
      if (missing || !upstreams) continue;
      const done = (outcome: CaseOutcome) => {
        row.outcomes.push(outcome);
        say(`${captionOf(row)}: ${outcomeText(outcome)}`);
      };
      jobs.push(() => contender.run(scope, {tools, upstreams, done}));
    }
  }
  await inParallel(CONCURRENCY, jobs);
  return rows;
}

const captionOf = ({upstream, client}: ClientRow): string =>
  upstream === '' ? client : `${upstream}, ${client}`;

const upstreamText = (name: UpstreamName, tools: Toolbox): string => {
  const tool = UPSTREAM_TOOLS[name];
  return tools.missing.has(tool) ? name : `${name} ${tools.version(tool)}`;
};

const withVersion = ({name, tools: [first]}: Contender, tools: Toolbox): string =>
  tools.missing.has(first) ? name : name.replace(/^[^,]*/, `$& ${tools.version(first)}`);
