import {X509Certificate} from 'node:crypto';
import {errorCode} from '../error-code.ts';
import {describeFault, parseHtpasswd} from '../identity/htpasswd.ts';
import {whyNoSigningKey} from '../identity/signing-keys.ts';
import {keyPairFault} from '../key-pair.ts';
import {isRecord} from '../oci/json.ts';
import type {PlacedFault} from './fault.ts';
import {listenersIn} from './listen-settings.ts';
import {formatPath, type Path, subtree, type Tree, textsAt, valueAt} from './tree.ts';

/** Reads a text file. Rejects with the error of the file system. */
export type ReadFile = (path: string) => Promise<string>;

export interface NamedFiles {
  /** Contents by path, as written in the settings. */
  contents: Map<string, string>;
  faults: PlacedFault[];
}

/** A setting that names a file, and what is wrong with a file's text. */
interface FileKind {
  key: readonly string[];
  problem: (text: string) => string | undefined;
  mayBeUrl?: boolean;
}

const AUTHORITY: FileKind = {
  key: ['ca'],
  problem: (text) => (isCertificate(text) ? undefined : 'is not a PEM certificate'),
};
const OF_ACCESS: FileKind[] = [
  {key: ['users', 'htpasswd'], problem: whyNoHtpasswd},
  {key: ['tokens', 'key'], problem: whyNoSigningKey},
];
const OF_UPSTREAM: FileKind[] = [
  {
    key: ['credentials', 'passwordFile'],
    problem: (text) => (withoutNewline(text) === '' ? 'is empty' : undefined),
  },
  {key: ['credentials', 'dockerConfig'], problem: (text) => (isJson(text) ? undefined : 'is not JSON')},
  AUTHORITY,
];
/** The keys of an issuer are read again while the server runs. */
const OF_ISSUER: FileKind[] = [
  AUTHORITY,
  {
    key: ['jwks'],
    problem: (text) => (isKeySet(text) ? undefined : 'is not a JSON Web Key Set'),
    mayBeUrl: true,
  },
];

/** Reads every file that the settings name: passwords, users, keys, Docker configurations, certificate authorities. */
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
  const issuers = valueAt(tree, ['access', 'issuers']);
  return [
    ...filesAt(tree, ['access'], OF_ACCESS),
    ...registries.flatMap((name) => filesAt(tree, ['registries', name, 'upstream'], OF_UPSTREAM)),
    ...Array.from(Array.isArray(issuers) ? issuers.keys() : []).flatMap((index) =>
      filesAt(tree, ['access', 'issuers', index], OF_ISSUER),
    ),
  ];
}

/** Every fault: a file of users is often converted as a whole. */
function whyNoHtpasswd(text: string): string | undefined {
  const {faults} = parseHtpasswd(text);
  return faults.length === 0 ? undefined : `has faults: ${faults.map(describeFault).join('; ')}`;
}

/** What is wrong with the key pairs of listeners. Settings without a path are reported by the schema. */
export async function keyPairFaults(tree: Tree, readFile: ReadFile): Promise<PlacedFault[]> {
  const found = await Promise.all(
    listenersIn(tree).map(({listener, at}) =>
      keyPairFaultsAt(subtree(listener, 'tls'), [...at, 'tls'], readFile),
    ),
  );
  return found.flat();
}

async function keyPairFaultsAt(tls: Tree, at: Path, readFile: ReadFile): Promise<PlacedFault[]> {
  const texts: Record<string, string> = {};
  const faults: PlacedFault[] = [];
  const add = (file: string, problem: string) => {
    const path = [...at, file];
    faults.push({path: formatPath(path), at: path, problem: `names a file that ${problem}`});
  };
  for (const {text: file, path} of ['cert', 'key', 'clientCa'].flatMap((key) => textsAt(tls, [key]))) {
    const key = String(path[0]);
    await readFile(file).then(
      (text) => {
        texts[key] = text;
      },
      (error: unknown) => add(key, describeReadError(error)),
    );
  }
  const {cert, key, clientCa} = texts;
  if (cert === undefined || key === undefined || faults.length > 0) return faults;
  const wrong = keyPairFault({cert, key, clientCa});
  if (wrong) add(wrong.file, wrong.problem);
  return faults;
}

const filesAt = (tree: Tree, at: Path, kinds: readonly FileKind[]) =>
  kinds.flatMap(({key, problem, mayBeUrl}) =>
    textsAt(tree, [...at, ...key])
      // An empty path, or one with "~", is reported by the schema.
      .filter(({text}) => !/^(?:~|$)/.test(text) && !(mayBeUrl && /^https?:/i.test(text)))
      .map((found) => ({...found, problem})),
  );

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

const isKeySet = (text: string): boolean => isJson(text) && Array.isArray(JSON.parse(text).keys);

function isCertificate(text: string): boolean {
  try {
    new X509Certificate(text);
    return true;
  } catch {
    return false;
  }
}
