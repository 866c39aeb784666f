import {X509Certificate} from 'node:crypto';
import {errorCode} from '../error-code.ts';
import {isRecord} from '../oci/json.ts';
import type {PlacedFault} from './fault.ts';
import {formatPath, type Path, type Tree, textsAt} from './tree.ts';

/** Reads a text file. Rejects with the error of the file system. */
export type ReadFile = (path: string) => Promise<string>;

export interface NamedFiles {
  /** Contents by path, as written in the settings. */
  contents: Map<string, string>;
  faults: PlacedFault[];
}

/** The settings of a registry that name a file, and what is wrong with a file's text. */
const KINDS: {key: readonly string[]; problem: (text: string) => string | undefined}[] = [
  {
    key: ['credentials', 'passwordFile'],
    problem: (text) => (withoutNewline(text) === '' ? 'is empty' : undefined),
  },
  {key: ['credentials', 'dockerConfig'], problem: (text) => (isJson(text) ? undefined : 'is not JSON')},
  {key: ['ca'], problem: (text) => (isCertificate(text) ? undefined : 'is not a PEM certificate')},
];

/** Reads every file that the registries name: passwords, Docker configurations, certificate authorities. */
export async function readNamedFiles(tree: Tree, readFile: ReadFile): Promise<NamedFiles> {
  const contents = new Map<string, string>();
  const faults: PlacedFault[] = [];
  for (const {text: file, path, problem} of namedFiles(tree)) {
    const result = await readFile(file).then(
      (text) => ({text, wrong: problem(text)}),
      (error: unknown) => ({text: '', wrong: describeReadError(error)}),
    );
    if (result.wrong === undefined) contents.set(file, result.text);
    else faults.push({path: formatPath(path), at: path, problem: `names a file that ${result.wrong}`});
  }
  return {contents, faults};
}

function namedFiles(tree: Tree) {
  const registries = isRecord(tree['registries']) ? Object.keys(tree['registries']) : [];
  return registries.flatMap((name) =>
    KINDS.flatMap(({key, problem}) => {
      const at: Path = ['registries', name, 'upstream', ...key];
      // An empty path, or one with "~", is reported by the schema.
      return textsAt(tree, at).flatMap((found) => (/^(~|$)/.test(found.text) ? [] : [{...found, problem}]));
    }),
  );
}

/** An error of the file system as the end of "a file that …". */
export function describeReadError(error: unknown): string {
  const code = errorCode(error) ?? 'unknown';
  if (code === 'ENOENT') return 'does not exist; relative paths start at the working directory';
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read by this user';
  if (code === 'EISDIR') return 'is a folder';
  return `cannot be read (${code})`;
}

/** Editors and `echo` end a file with a newline, which is not part of the secret. */
export const withoutNewline = (text: string): string => text.replace(/\r?\n$/, '');

function isJson(text: string): boolean {
  try {
    return isRecord(JSON.parse(text));
  } catch {
    return false;
  }
}

function isCertificate(text: string): boolean {
  try {
    new X509Certificate(text);
    return true;
  } catch {
    return false;
  }
}
