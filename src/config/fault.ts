import {distance} from 'fastest-levenshtein';
import {isTree, type Path, valueAt} from './tree.ts';

/** One thing that is wrong with the configuration, told to the person who wrote it. */
export interface Fault {
  /** The setting, e.g. `registries.docker.io.tags.ttl`; empty for the file as a whole. */
  path: string;
  /** What was found there, as it was written; never a secret. */
  value?: string;
  /** What is wrong, what is allowed, what to do. */
  problem: string;
  /** `file:line:column`, or the environment variable. */
  where?: string;
}

/**
 * A fault of what stands at a path of the settings, before it is known where that was written. The value of
 * an unknown key is hidden: it may be a secret whose key is misspelt.
 */
export type PlacedFault = Fault & {at: Path; hideValue?: true};

/** The configuration cannot be used. Carries every fault at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly faults: readonly Fault[];
  /** What was read, for a person: the file, or the built-in default. */
  readonly source: string;

  constructor(source: string, faults: readonly Fault[]) {
    super(describe(source, faults));
    this.source = source;
    this.faults = faults;
  }
}

function describe(source: string, faults: readonly Fault[]): string {
  const count = faults.length === 1 ? '1 fault' : `${faults.length} faults`;
  return [`The configuration cannot be used (${source}): ${count}`, ...faults.map(describeFault)].join('\n');
}

function describeFault({path, value, problem, where}: Fault): string {
  const head = [path, where ? `(${where})` : ''].filter(Boolean).join(' ');
  const body = value === undefined ? problem : `${problem}; found ${value}`;
  return head === '' ? `  ${body}` : `  ${head}\n    ${body}`;
}

/** What a credential may be shown of in a fault. */
const HARMLESS = new Set<unknown>(['username', 'passwordFile', 'dockerConfig']);
const isSecret = (path: Path): boolean => path[3] === 'credentials' && !HARMLESS.has(path[4]);

/**
 * What stands at a path, for a person: as it was written, before variables were put in, since those may hold secrets.
 * Undefined for a secret and where nothing stands.
 */
export function shownValue(written: unknown, path: Path): string | undefined {
  const value = valueAt(written, path);
  if (value === undefined || isSecret(path)) return undefined;
  if (Array.isArray(value)) return 'a list';
  if (isTree(value)) return 'a mapping';
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.replace(/\/\/.*@/, '//[redacted]@').slice(0, 120));
}

/** The known word that was probably meant: the closest one, if at most a third of it has to be edited. */
function nearest(written: string, known: readonly string[]): string | undefined {
  const text = written.toLowerCase();
  const [best] = known
    .map((word) => ({word, edits: distance(text, word.toLowerCase())}))
    .filter(({word, edits}) => edits <= Math.max(1, Math.floor(word.length / 3)))
    .sort((a, b) => a.edits - b.edits);
  return best?.word;
}

/** ` (did you mean "ttl"?)`, or nothing. */
export function didYouMean(written: string, known: readonly string[]): string {
  const word = nearest(written, known);
  return word === undefined ? '' : ` (did you mean "${word}"?)`;
}
