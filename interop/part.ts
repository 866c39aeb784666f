import {inParallel} from './parallel.ts';
import {type Outcome, outcomeText, type Row} from './report.ts';
import type {Scope} from './scope.ts';
import type {Tool, Toolbox} from './tools.ts';
import {startRegistry, UPSTREAM_TOOLS, type UpstreamName} from './upstreams.ts';

/** What one client is run against. */
export interface Before {
  tools: Toolbox;
  upstream: UpstreamName;
  /** Of the upstream, `http://host:port`. */
  url: string;
  /** Is told of each case when it is done. */
  done(outcome: Outcome): void;
}

/** A client, taken through all cases of its part. */
export interface Contender {
  /** As the table names it; its version is put before the first comma. */
  name: string;
  /** What it needs; the first one's version stands in the table. */
  tools: readonly [Tool, ...Tool[]];
  run(scope: Scope, before: Before): Promise<void>;
}

/** A table of the run: contenders by cases, once for each upstream. */
export interface Part {
  /** The markers in README.md that the table stands between. */
  section: string;
  cases: readonly string[];
  upstreams: readonly UpstreamName[];
  contenders: readonly Contender[];
  /** Puts into an upstream what all contenders need. */
  fill(url: string): Promise<void>;
}

/** As many contenders at once as a small machine has cores. */
const AT_ONCE = 2;

/** Every tool that some contender of the parts needs, and every upstream's. */
export function toolsOf(parts: readonly Part[]): Tool[] {
  const tools = parts.flatMap(({upstreams, contenders}) => [
    ...upstreams.map((name) => UPSTREAM_TOOLS[name]),
    ...contenders.flatMap((contender) => contender.tools),
  ]);
  return [...new Set(tools)];
}

/** Runs a part. @returns its rows; those for which a tool is missing have no outcomes. */
export async function runPart(
  scope: Scope,
  part: Part,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<Row[]> {
  const rows: Row[] = [];
  const jobs: (() => Promise<void>)[] = [];
  for (const name of part.upstreams) {
    const tool = UPSTREAM_TOOLS[name];
    const upstream = tools.missing.has(tool) ? name : `${name} ${tools.version(tool)}`;
    const registry = tools.missing.has(tool) ? undefined : await startRegistry(scope, tools, name);
    if (registry) await part.fill(registry.url);
    for (const contender of part.contenders) {
      const missing = [tool, ...contender.tools].find((each) => tools.missing.has(each));
      const row: Row = {
        upstream,
        client: withVersion(contender, tools),
        outcomes: [],
        missing: missing && `${missing} is missing: ${tools.missing.get(missing)}`,
      };
      rows.push(row);
      if (missing) say(`${upstream}, ${contender.name}: not run, ${row.missing}`);
      if (missing || !registry) continue;
      const done = (outcome: Outcome) => {
        row.outcomes.push(outcome);
        say(`${upstream}, ${row.client}: ${outcomeText(outcome)}`);
      };
      jobs.push(() => contender.run(scope, {tools, upstream: name, url: registry.url, done}));
    }
  }
  await inParallel(AT_ONCE, jobs);
  return rows;
}

const withVersion = ({name, tools: [first]}: Contender, tools: Toolbox): string =>
  tools.missing.has(first) ? name : name.replace(/^[^,]*/, `$& ${tools.version(first)}`);
