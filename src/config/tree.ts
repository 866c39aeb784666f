import {isRecord} from '../oci/json.ts';

/** Settings as they are written in the file, not yet validated. */
export type Tree = Record<string, unknown>;
export type Path = readonly (string | number)[];

/** The mapping at a key; an empty one for any other value. */
export function subtree(tree: Tree, key: string): Tree {
  const value = Object.hasOwn(tree, key) ? tree[key] : undefined;
  return isRecord(value) ? value : {};
}

/** The value at a path, or undefined. */
export function valueAt(tree: unknown, path: Path): unknown {
  return path.reduce<unknown>((value, key) => {
    if (Array.isArray(value)) return value[Number(key)];
    return isRecord(value) && Object.hasOwn(value, String(key)) ? value[String(key)] : undefined;
  }, tree);
}

/** The texts at a path that holds a text or a list of texts, each with its own path. */
export function textsAt(tree: Tree, path: Path): {text: string; path: Path}[] {
  const value = valueAt(tree, path);
  if (typeof value === 'string') return [{text: value, path}];
  if (!Array.isArray(value)) return [];
  return value.flatMap((item, index) =>
    typeof item === 'string' ? [{text: item, path: [...path, index]}] : [],
  );
}

/** Sets one value; creates the mappings on the way. @returns the new tree. */
export function withValue(tree: Tree, [key, ...rest]: readonly string[], value: unknown): Tree {
  if (key === undefined) return tree;
  if (rest.length === 0) return {...tree, [key]: value};
  const inner = tree[key] ?? {};
  return isRecord(inner) ? {...tree, [key]: withValue(inner, rest, value)} : tree;
}

/** `registries.docker.io.aliases[1]` */
export const formatPath = (path: Path): string =>
  path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text === '' ? key : `${text}.${key}`;
  }, '');
