import {distance} from 'fastest-levenshtein';
import {isRecord} from '../oci/json.ts';
import {type Path, valueAt} from './tree.ts';

/** One fault of the configuration, reported to the person who wrote it. */
export interface Fault {
  /** The setting, e.g. `registries.docker.io.tags.ttl`; empty for the whole file. */
  path: string;
  /** The value as it was written; never a secret. */
  value?: string;
  /** What is wrong, what is allowed, what to do. */
  problem: string;
  /** `file:line:column`, or the environment variable. */
  where?: string;
}

/**
 * A fault at a path of the settings, before its place in the file is known. The value of an unknown key is hidden: it
 * may be a secret whose key is misspelled.
 */
export type PlacedFault = Fault & {at: Path; hideValue?: true};

/** The configuration cannot be used. Has every fault at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly faults: readonly Fault[];
  /** Where the configuration was read from: the file, or `built-in default`. */
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

/** The settings of credentials that are not secret. */
const NOT_SECRET = new Set<unknown>(['username', 'passwordFile', 'dockerConfig']);
const isSecret = (path: Path): boolean => path[3] === 'credentials' && !NOT_SECRET.has(path[4]);

/**
 * The value at a path as it was written, before variables were replaced, since those may hold secrets.
 * @returns undefined for a secret, and without a value.
 */
export function shownValue(written: unknown, path: Path): string | undefined {
  const value = valueAt(written, path);
  if (value === undefined || isSecret(path)) return undefined;
  if (Array.isArray(value)) return 'a list';
  if (isRecord(value)) return 'a mapping';
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.replace(/\/\/.*@/, '//[redacted]@').slice(0, 120));
}

/** The closest known word, if at most a third of it differs. */
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
