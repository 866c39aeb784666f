import type {PlacedFault} from './fault.ts';
import {formatPath, isTree, type Path, type Tree} from './tree.ts';

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
