import type {z} from 'zod';
import type {Config} from '../config.ts';
import {didYouMean, type PlacedFault} from './fault.ts';
import {isLoopback, parseHost} from './host.ts';
import {knownKeys} from './schema.ts';
import {formatPath, isTree, type Path, subtree, type Tree, textsAt, valueAt} from './tree.ts';

/** Turns what zod says of the settings' shape into faults, one for each unknown key. */
export const shapeFaults = (error: z.ZodError): PlacedFault[] => error.issues.flatMap(faultsOf);

function faultsOf(issue: z.core.$ZodIssue): PlacedFault[] {
  const at = issue.path.map((key) => (typeof key === 'number' ? key : String(key)));
  if (issue.code !== 'unrecognized_keys') return [{path: formatPath(at), at, problem: issue.message}];
  const known = knownKeys(at);
  return issue.keys.map((key) => ({
    path: formatPath([...at, key]),
    at: [...at, key],
    hideValue: true,
    problem: `is not known${didYouMean(key, known)}: allowed here are ${known.join(', ')}`,
  }));
}

const fault = (at: Path, problem: string): PlacedFault => ({path: formatPath(at), at, problem});
const isTrue = (value: unknown): boolean => String(value) === 'true';

/**
 * What must hold between settings that are each right on their own. Works on settings whose shape may be wrong, so
 * that these faults are told together with those of the shape.
 */
export function crossChecks(tree: Tree): PlacedFault[] {
  if (!isTree(tree['registries'])) return [];
  const registries = Object.entries(tree['registries']);
  return [
    ...checkNames(registries.map(([name]) => name)),
    ...checkDefault(registries),
    ...checkUnique(registries.flatMap(([name]) => namesOf(tree, name))),
    ...checkUnique(registries.flatMap(([name]) => textsAt(tree, ['registries', name, 'hosts']))),
    ...registries.flatMap(([name, registry]) =>
      isTree(registry) ? [...checkPush(name, registry), ...checkUpstream(name, registry)] : [],
    ),
  ];
}

function checkNames(names: readonly string[]): PlacedFault[] {
  if (names.length === 0)
    return [
      fault(
        ['registries'],
        'holds no registry: name at least one, or remove the key for the built-in registries',
      ),
    ];
  return names
    .filter((name) => parseHost(name) === undefined)
    .map((name) =>
      fault(
        ['registries', name],
        'must be named like a host with an optional port, in lower case, e.g. ghcr.io',
      ),
    );
}

function checkDefault(registries: readonly [string, unknown][]): PlacedFault[] {
  const [first, ...others] = registries.filter(([, registry]) => isTrue(valueAt(registry, ['default'])));
  return others.map(([name]) =>
    fault(
      ['registries', name, 'default'],
      `must be true for one registry only: ${first?.[0]} is the default already`,
    ),
  );
}

const namesOf = (tree: Tree, name: string) => [
  {text: name, path: ['registries', name]},
  ...textsAt(tree, ['registries', name, 'aliases']),
];

/** Whatever routes a request must lead to one registry. */
function checkUnique(names: readonly {text: string; path: Path}[]): PlacedFault[] {
  const owners = new Map<string, Path>();
  return names.flatMap(({text, path}) => {
    const owner = owners.get(text);
    owners.set(text, owner ?? path);
    return owner ? [fault(path, `must be unique: "${text}" stands at ${formatPath(owner)} already`)] : [];
  });
}

/** What takes no pushes and has no upstream would be empty for ever. */
function checkPush(name: string, registry: Tree): PlacedFault[] {
  const at: Path = ['registries', name, 'push'];
  if (registry['upstream'] !== undefined) return [];
  if (registry['push'] === 'deny')
    return [
      fault(at, 'leaves a registry without upstream empty: write local, or name the upstream to mirror'),
    ];
  if (registry['push'] === 'through')
    return [fault(at, 'has no upstream to write to: write local, or name the upstream')];
  return [];
}

function checkUpstream(name: string, registry: Tree): PlacedFault[] {
  const upstream = subtree(registry, 'upstream');
  const at: Path = ['registries', name, 'upstream'];
  return [...checkScheme(upstream, at), ...checkCredentials(upstream, [...at, 'credentials'])];
}

function checkScheme(upstream: Tree, at: Path): PlacedFault[] {
  const url = String(upstream['url']);
  const insecure = isTrue(upstream['insecure']);
  if (/^http:/i.test(url) && !insecure)
    return [
      fault([...at, 'url'], 'is plain HTTP: write https://, or add insecure: true if the network is trusted'),
    ];
  if (/^https:/i.test(url) && insecure)
    return [
      fault(
        [...at, 'insecure'],
        'only permits http://, certificates are always verified: remove it; for a certificate authority of your own use upstream.ca',
      ),
    ];
  return [];
}

/** Either a user with one kind of password, or a Docker configuration. */
function checkCredentials(upstream: Tree, at: Path): PlacedFault[] {
  if (!isTree(upstream['credentials'])) return [];
  const set = new Set(
    Object.entries(upstream['credentials']).flatMap(([key, value]) => (value === undefined ? [] : key)),
  );
  const passwords = Number(set.has('password')) + Number(set.has('passwordFile'));
  if (set.has('dockerConfig')) {
    return set.has('username') || passwords > 0
      ? [fault(at, 'must hold either dockerConfig or username with a password, not both')]
      : [];
  }
  if (set.has('username') && passwords === 1) return [];
  return [fault(at, 'must hold username and one of password and passwordFile, or dockerConfig alone')];
}

/** Something that is allowed, and that the person who wrote it may not have meant. */
export interface Warning {
  /** The setting to look at. */
  path: string;
  /** What may happen, and what to do. */
  problem: string;
}

/** What a configuration without faults is worth warning of. */
export function configWarnings({listen, registries}: Config): Warning[] {
  const pushed = registries.filter(({push}) => push !== 'deny').map(({name}) => name);
  if (pushed.length === 0 || isLoopback(listen.host)) return [];
  return [
    {
      path: 'listen.host',
      problem: `anyone who can reach ${listen.host} can push to ${pushed.join(', ')}: backref checks no credentials of clients. Listen on 127.0.0.1, let only trusted clients reach it, or put a proxy with authentication in front`,
    },
  ];
}
