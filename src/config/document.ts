import {
  type Document,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLError,
} from 'yaml';
import {isRecord} from '../oci/json.ts';
import type {Fault} from './fault.ts';
import type {Path, Tree} from './tree.ts';

export interface SettingsFile {
  tree: Tree;
  faults: Fault[];
  /** False when the text could not be parsed, so that its tree is empty. */
  readable: boolean;
  /** `file:line:column` of the value at a path, else of what encloses it. */
  locate(path: Path): string;
}

/** Replaces messages of the parser that repeat a value, since that may be a secret. */
const PROBLEMS: Partial<Record<YAMLError['code'], string>> = {
  DUPLICATE_KEY: 'duplicate key: keep one of the two',
  BAD_ALIAS: 'is read as a YAML alias because it begins with "*": put the value in quotes',
  TAG_RESOLVE_FAILED: 'is read as a YAML tag because it begins with "!": put the value in quotes',
};

/**
 * Parses a YAML 1.2 file. Duplicate keys, unknown tags and everything that YAML itself forbids are faults. A key without
 * a value counts as not set.
 */
export function parseSettings(text: string, file: string): SettingsFile {
  const lines = new LineCounter();
  const document = parseDocument(text, {lineCounter: lines, prettyErrors: false, uniqueKeys: true});
  const position = (offset: number): string => {
    const {line, col} = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const faults = [...document.errors, ...document.warnings].map(
    (error): Fault => ({
      path: '',
      problem: PROBLEMS[error.code] ?? `is not valid YAML: ${error.message}`,
      where: position(error.pos[0]),
    }),
  );
  const broken = document.errors.some(({code}) => code !== 'DUPLICATE_KEY');
  const tree = broken ? {} : readTree(document, faults);
  return {
    tree: tree ?? {},
    faults,
    readable: !broken && tree !== undefined,
    locate: (path) => position(offsetOf(document.contents, path)),
  };
}

/** @returns the document's mapping; undefined, with a fault, when it is something else. */
function readTree(document: Document, faults: Fault[]): Tree | undefined {
  let value: unknown;
  try {
    value = document.toJS();
  } catch {
    faults.push({
      path: '',
      problem: 'has a YAML alias without an anchor, or too many aliases: write the values out',
    });
    return undefined;
  }
  if (value === null) return {};
  if (isRecord(value)) return withoutNulls(value);
  faults.push({path: '', problem: 'must be a mapping of settings, e.g. "listen: {port: 5000}"'});
  return undefined;
}

const withoutNulls = (tree: Tree): Tree =>
  Object.fromEntries(
    Object.entries(tree).map(([key, value]) => [
      key,
      isRecord(value) ? withoutNulls(value) : (value ?? undefined),
    ]),
  );

/** The offset of the value at a path; when there is none, of the path's last key that exists. */
function offsetOf(root: unknown, path: Path): number {
  let node: unknown = root;
  let offset = isNode(root) ? start(root) : 0;
  for (const key of path) {
    const pair = isMap(node)
      ? node.items.find((item) => isScalar(item.key) && String(item.key.value) === key)
      : undefined;
    const next = isSeq(node) ? node.items[Number(key)] : pair?.value;
    if (pair && isNode(pair.key)) offset = start(pair.key);
    if (isScalar(next) && next.value !== null) offset = start(next);
    if (next === undefined) return offset;
    node = next;
  }
  return offset;
}

const start = (node: Node): number => node.range?.[0] ?? 0;
