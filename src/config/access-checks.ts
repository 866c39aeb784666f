import {kindOfName, parseCallerGlob} from '../caller-glob.ts';
import type {RegistryConfig} from '../config.ts';
import {parsePlaceGlob} from '../oci/image-glob.ts';
import {isRecord} from '../oci/json.ts';
import {didYouMean, type PlacedFault} from './fault.ts';
import {BUILT_IN_REGISTRIES} from './schema.ts';
import {formatPath, type Path, subtree, type Tree, textsAt, valueAt} from './tree.ts';
import {whyUnmatched} from './unmatched.ts';

/** The kinds of names that every server knows. Each issuer of tokens adds its own name. */
const KINDS = ['user', 'robot', 'group', 'cert'];
const ANYBODY = ['anonymous', '*', '**'];
const GROUP_NAME = /^[\w.-]{1,128}$/;

interface Text {
  readonly text: string;
  readonly path: Path;
}

interface WrittenRule {
  readonly at: Path;
  readonly who: readonly Text[];
  readonly where: readonly Text[];
}

const fault = (at: Path, problem: string): PlacedFault => ({path: formatPath(at), at, problem});

/** Finds names that nobody can have, places that cannot exist, and rules that never decide. */
export function accessFaults(tree: Tree): PlacedFault[] {
  const access = subtree(tree, 'access');
  const kinds = [...KINDS, ...issuersOf(access)];
  const rules = rulesOf(tree);
  const groups = Object.keys(subtree(access, 'groups'));
  return [
    ...groups.flatMap((group) => faultsOfGroup(tree, group, {kinds, groups})),
    ...rules.flatMap(({who}) => who.flatMap((each) => faultOfName(each, kinds))),
    ...rules.flatMap(({where}) => where.flatMap((each) => faultOfPlace(each, registriesOf(tree)))),
    ...rules.flatMap((rule, index) => faultOfOrder(rule, rules.slice(0, index))),
  ];
}

const issuersOf = (access: Tree): string[] =>
  [access['issuers'] ?? []].flat().flatMap((issuer) => {
    const name = valueAt(issuer, ['name']);
    return typeof name === 'string' ? [name] : [];
  });

function rulesOf(tree: Tree): WrittenRule[] {
  const rules = subtree(tree, 'access')['rules'];
  if (!Array.isArray(rules)) return [];
  return rules.map((_, index) => {
    const at: Path = ['access', 'rules', index];
    return {at, who: textsAt(tree, [...at, 'who']), where: textsAt(tree, [...at, 'where'])};
  });
}

function registriesOf(tree: Tree): Pick<RegistryConfig, 'name' | 'library'>[] {
  const written = tree['registries'];
  return Object.entries(isRecord(written) ? written : BUILT_IN_REGISTRIES).map(([name, registry]) => ({
    name,
    library: String(valueAt(registry, ['library'])) === 'true',
  }));
}

interface Known {
  readonly kinds: readonly string[];
  readonly groups: readonly string[];
}

function faultsOfGroup(tree: Tree, group: string, {kinds, groups}: Known): PlacedFault[] {
  const at: Path = ['access', 'groups', group];
  const members = textsAt(tree, at);
  const nested = members.filter(({text}) => groups.some((name) => text === `group:${name}`));
  return [
    ...(GROUP_NAME.test(group)
      ? []
      : [fault(at, 'must be a name of at most 128 letters, digits, ".", "_" and "-"')]),
    ...members.flatMap((member) => faultOfName(member, kinds)),
    ...nested.map(({text, path}) =>
      fault(path, `is another group of this list: write the members of ${text} instead`),
    ),
  ];
}

function faultOfName({text, path}: Text, kinds: readonly string[]): PlacedFault[] {
  const kind = kindOfName(text);
  const isName = text.length > kind.length + 1 && kinds.includes(kind);
  if (isName || ANYBODY.includes(text) || !parseCallerGlob(text)) return [];
  const known = kinds.map((each) => `${each}:…`).join(', ');
  const suggestion = kinds.includes(kind) ? '' : didYouMean(kind, kinds);
  return [fault(path, `is not the name of a caller${suggestion}: write anonymous, *, or one of ${known}`)];
}

function faultOfPlace({text, path}: Text, registries: ReturnType<typeof registriesOf>): PlacedFault[] {
  const problem = parsePlaceGlob(text) && whyUnmatched(text, registries);
  return problem === undefined ? [] : [fault(path, problem)];
}

/** The first rule that matches decides. */
function faultOfOrder(rule: WrittenRule, earlier: readonly WrittenRule[]): PlacedFault[] {
  if (rule.who.length === 0 || rule.where.length === 0) return [];
  const index = earlier.findIndex(
    ({who, where}) =>
      rule.who.every((name) => who.some((each) => coversName(each.text, name.text))) &&
      rule.where.every((place) => where.some((each) => coversPlace(each.text, place.text))),
  );
  if (index === -1) return [];
  return [
    fault(
      rule.at,
      `never decides: rule ${index + 1} is about the same callers and places, and the first match decides. Put this one before it, or remove one of them`,
    ),
  ];
}

/** Whether whatever the second pattern matches is matched by the first one, as far as that is plain to see. */
function coversName(first: string, second: string): boolean {
  if (first === second || first === '*' || first === '**') return true;
  return !/[*?]/.test(second) && parseCallerGlob(first)?.matches(second) === true;
}

function coversPlace(first: string, second: string): boolean {
  if (first === second || first === '**') return true;
  const outer = parsePlaceGlob(first);
  if (!outer || outer.hasTag) return false;
  const [registry = '', ...repository] = withoutTag(second).split('/');
  if (first.endsWith('/**') && !/[*?[\]{}]/.test(first.slice(0, -3)))
    return withoutTag(second).startsWith(first.slice(0, -2));
  return !/[*?[\]{}]/.test(withoutTag(second)) && outer.matchesRepository(registry, repository.join('/'));
}

/** A tag has no slash; a port is followed by one. */
const withoutTag = (place: string): string => place.replace(/:[^:/]*$/, '');
