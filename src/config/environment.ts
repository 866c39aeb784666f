import {didYouMean, type Fault, type PlacedFault} from './fault.ts';
import {formatPath, isTree, type Path, type Tree, withValue} from './tree.ts';

/** The variable that names the file of settings. */
export const CONFIG_VARIABLE = 'BACKREF_CONFIG';
const PREFIX = 'BACKREF_';

/** `shutdown.grace` is `BACKREF_SHUTDOWN_GRACE`; a capital inside a key begins a new word. */
const variableOf = (path: readonly string[]): string =>
  PREFIX + path.map((key) => key.replace(/[A-Z]/g, '_$&').toUpperCase()).join('_');

/**
 * What Kubernetes puts into every container of a namespace that has a Service named `backref` or `backref-…`; nobody
 * who runs backref there has written these.
 */
const SERVICE_LINK = /_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)/;
const isServiceLink = (name: string, value: string): boolean =>
  SERVICE_LINK.test(name) || (name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value));

export interface Overrides {
  /** The tree with the overrides laid over it. */
  tree: Tree;
  /** The variable behind each overridden path, e.g. `listen.port` → `BACKREF_LISTEN_PORT`. */
  sources: Map<string, string>;
}

/** Lays the `BACKREF_*` variables of scalar settings over the tree. */
export function applyOverrides(tree: Tree, env: Environment, scalars: readonly string[][]): Overrides {
  const sources = new Map<string, string>();
  let overridden = tree;
  for (const path of scalars) {
    const name = variableOf(path);
    const value = env[name];
    if (value === undefined || isServiceLink(name, value)) continue;
    overridden = withValue(overridden, path, value);
    sources.set(formatPath(path), name);
  }
  return {tree: overridden, sources};
}

/** `BACKREF_*` variables that mean nothing: no setting, and not named as `${…}` in the file. */
export function unknownVariables(
  env: Environment,
  scalars: readonly string[][],
  named: ReadonlySet<string>,
): Fault[] {
  const known = [CONFIG_VARIABLE, ...scalars.map(variableOf)];
  return Object.entries(env)
    .filter(([name]) => name.startsWith(PREFIX) && !known.includes(name) && !named.has(name))
    .filter(([name, value]) => !isServiceLink(name, value ?? ''))
    .map(([name]) => ({
      path: '',
      where: name,
      problem: `is no setting${didYouMean(name, known)}: known are ${known.join(', ')}; registries are set in the file`,
    }));
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** `$${` (a literal `${`), `${VAR}`, `${VAR:-default}`, or a `${` that is none of them. */
const REFERENCE = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{/g;

export interface Substituted {
  tree: Tree;
  faults: PlacedFault[];
  /** The variables that the settings name. */
  names: Set<string>;
}

/**
 * Replaces `${VAR}` and `${VAR:-default}` in every text of the tree; as in a shell, the default also stands in for an
 * empty variable. An unset variable without a default is a fault that names it.
 */
export function substitute(tree: Tree, env: Environment): Substituted {
  const faults: Substituted['faults'] = [];
  const names = new Set<string>();

  const replaceText = (text: string, at: Path): string => {
    const fault = (problem: string) => {
      faults.push({path: formatPath(at), at, problem});
      return '';
    };
    return text.replace(REFERENCE, (reference: string, name?: string, fallback?: string) => {
      if (reference === '$${') return '${';
      if (name === undefined)
        return fault(
          'holds "${" that begins no variable: write ${NAME} or ${NAME:-default}, or $${ for a literal "${"',
        );
      names.add(name);
      const value = env[name];
      if (fallback !== undefined) return value || fallback;
      return (
        value ??
        fault(
          `names the environment variable ${name}, which is not set: set it, or write \${${name}:-default}`,
        )
      );
    });
  };
  const replace = (value: unknown, at: Path): unknown => {
    if (typeof value === 'string') return replaceText(value, at);
    if (Array.isArray(value)) return value.map((item, index) => replace(item, [...at, index]));
    return isTree(value) ? replaceAll(value, at) : value;
  };
  const replaceAll = (inner: Tree, at: Path): Tree =>
    Object.fromEntries(Object.entries(inner).map(([key, value]) => [key, replace(value, [...at, key])]));

  return {tree: replaceAll(tree, []), faults, names};
}
