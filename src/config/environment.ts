import {isRecord} from '../oci/json.ts';
import {didYouMean, type Fault, type PlacedFault} from './fault.ts';
import {formatPath, type Path, type Tree, withValue} from './tree.ts';

/** The variable that names the configuration file. */
export const CONFIG_VARIABLE = 'BACKREF_CONFIG';
const PREFIX = 'BACKREF_';

/** `shutdown.grace` becomes `BACKREF_SHUTDOWN_GRACE`; a capital letter begins a new word. */
const variableOf = (path: readonly string[]): string =>
  PREFIX + path.map((key) => key.replace(/[A-Z]/g, '_$&').toUpperCase()).join('_');

/**
 * Matches the variables that Kubernetes sets in every container of a namespace with a Service named `backref` or
 * `backref-…`. They are not settings.
 */
const SERVICE_LINK = /_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)/;
const isServiceLink = (name: string, value: string): boolean =>
  SERVICE_LINK.test(name) || (name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value));

export interface Overrides {
  /** The tree with the overrides applied. */
  tree: Tree;
  /** The variable of each overridden path, e.g. `listen.port` → `BACKREF_LISTEN_PORT`. */
  sources: Map<string, string>;
  /** Variables of settings that the file has in a list. */
  faults: Fault[];
}

/** Applies the `BACKREF_*` variables of scalar settings to the tree. */
export function applyOverrides(tree: Tree, env: Environment, scalars: readonly string[][]): Overrides {
  const sources = new Map<string, string>();
  const faults: Fault[] = [];
  let overridden = tree;
  for (const path of scalars) {
    const name = variableOf(path);
    const value = env[name];
    if (value === undefined || isServiceLink(name, value)) continue;
    const [first = '', ...rest] = path;
    if (rest.length > 0 && Array.isArray(tree[first])) {
      faults.push({
        path: '',
        where: name,
        problem: `has no place: ${first} is a list in the file. Write the value there, or \${${name}} to use the variable`,
      });
      continue;
    }
    overridden = withValue(overridden, path, value);
    sources.set(formatPath(path), name);
  }
  return {tree: overridden, sources, faults};
}

/** Faults for `BACKREF_*` variables that neither override a setting nor are named as `${…}` in the file. */
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
      problem: `is not a setting${didYouMean(name, known)}: allowed are ${known.join(', ')}; registries are configured in the file`,
    }));
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** `$${` (a literal `${`), `${VAR}`, `${VAR:-default}`, or a `${` that is none of them. */
const REFERENCE = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{/g;

export interface Substituted {
  tree: Tree;
  faults: PlacedFault[];
  /** The variables that the settings refer to. */
  names: Set<string>;
}

/**
 * Replaces `${VAR}` and `${VAR:-default}` in every text of the tree. As in a shell, the default also replaces an empty
 * variable. An unset variable without a default is a fault.
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
          'has a "${" that does not begin a variable: write ${NAME} or ${NAME:-default}, or $${ for a literal "${"',
        );
      names.add(name);
      const value = env[name];
      if (fallback !== undefined) return value || fallback;
      return (
        value ??
        fault(
          `refers to the environment variable ${name}, which is not set: set it, or write \${${name}:-default}`,
        )
      );
    });
  };
  const replace = (value: unknown, at: Path): unknown => {
    if (typeof value === 'string') return replaceText(value, at);
    if (Array.isArray(value)) return value.map((item, index) => replace(item, [...at, index]));
    return isRecord(value) ? replaceAll(value, at) : value;
  };
  const replaceAll = (inner: Tree, at: Path): Tree =>
    Object.fromEntries(Object.entries(inner).map(([key, value]) => [key, replace(value, [...at, key])]));

  return {tree: replaceAll(tree, []), faults, names};
}
