import type {z} from 'zod';
import {formatAddress, isLocalOnly} from '../address.ts';
import type {Config, RegistryConfig} from '../config.ts';
import {isRecord} from '../oci/json.ts';
import {accessFaults} from './access-checks.ts';
import {certificateFaults} from './certificate-settings.ts';
import {didYouMean, type PlacedFault} from './fault.ts';
import {parseHost} from './host.ts';
import {issuerFaults, warnOfIssuer} from './issuer-settings.ts';
import {checkListen} from './listen-settings.ts';
import {passthroughFaults, passthroughWarnings} from './passthrough-checks.ts';
import {DEFAULT_WATERMARKS, knownKeys} from './schema.ts';
import {formatPath, type Path, subtree, type Tree, textsAt, valueAt} from './tree.ts';
import {formatPercentage, parsePercentage} from './units.ts';
import {whyUnmatched} from './unmatched.ts';

/** Turns zod's issues with the shape of the settings into faults; each unknown key is one. */
export const shapeFaults = (error: z.ZodError): PlacedFault[] => error.issues.flatMap(faultsOf);

function faultsOf(issue: z.core.$ZodIssue): PlacedFault[] {
  const written = issue.code === 'invalid_union' && issue.errors.find(isOfWritten);
  if (written) return written.flatMap((inner) => faultsOf({...inner, path: [...issue.path, ...inner.path]}));
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

/** Whether the issues with one of several forms are about what is in the value: it has that form. */
const isOfWritten = (issues: readonly z.core.$ZodIssue[]): boolean =>
  !issues.some(({code, path}) => code === 'invalid_type' && path.length === 0);

const fault = (at: Path, problem: string): PlacedFault => ({path: formatPath(at), at, problem});
const isTrue = (value: unknown): boolean => String(value) === 'true';

/**
 * Checks that settings fit together. Works on settings whose shape may be wrong, so that these faults are reported
 * together with those of the shape.
 */
export const crossChecks = (tree: Tree): PlacedFault[] => [
  ...checkListen(tree),
  ...checkWatermarks(tree),
  ...checkRegistries(tree),
  ...accessFaults(tree),
  ...issuerFaults(tree),
  ...certificateFaults(tree),
];

/** Eviction begins above the high watermark and ends at the low one. */
function checkWatermarks(tree: Tree): PlacedFault[] {
  const written = subtree(tree, 'cache');
  const {highWatermark, lowWatermark} = {...DEFAULT_WATERMARKS, ...written};
  const high = parsePercentage(highWatermark);
  const low = parsePercentage(lowWatermark);
  if (high === undefined || low === undefined || low < high) return [];
  const key = written['lowWatermark'] === undefined ? 'highWatermark' : 'lowWatermark';
  return [
    fault(
      ['cache', key],
      `must leave lowWatermark (${formatPercentage(low)}) below highWatermark (${formatPercentage(high)})`,
    ),
  ];
}

function checkRegistries(tree: Tree): PlacedFault[] {
  if (!isRecord(tree['registries'])) return [];
  const registries = Object.entries(tree['registries']);
  return [
    ...checkNames(registries.map(([name]) => name)),
    ...checkDefault(registries),
    ...checkUnique(registries.flatMap(([name]) => namesOf(tree, name))),
    ...checkUnique(registries.flatMap(([name]) => textsAt(tree, ['registries', name, 'hosts']))),
    ...registries.flatMap(([name, registry]) =>
      isRecord(registry)
        ? [
            ...checkPush(name, registry),
            ...checkUpstream(name, registry),
            ...checkTags(name, registry),
            ...passthroughFaults(name, registry),
          ]
        : [],
    ),
  ];
}

function checkNames(names: readonly string[]): PlacedFault[] {
  if (names.length === 0)
    return [
      fault(
        ['registries'],
        'is empty: name at least one registry, or remove the key to use the built-in registries',
      ),
    ];
  return names
    .filter((name) => parseHost(name) === undefined)
    .map((name) =>
      fault(['registries', name], 'must be a lower-case host with an optional port, e.g. ghcr.io'),
    );
}

function checkDefault(registries: readonly [string, unknown][]): PlacedFault[] {
  const [first, ...others] = registries.filter(([, registry]) => isTrue(valueAt(registry, ['default'])));
  return others.map(([name]) =>
    fault(
      ['registries', name, 'default'],
      `must be true for one registry only: ${first?.[0]} is already the default`,
    ),
  );
}

const namesOf = (tree: Tree, name: string) => [
  {text: name, path: ['registries', name]},
  ...textsAt(tree, ['registries', name, 'aliases']),
];

/** A name, alias or host routes requests to one registry only. */
function checkUnique(names: readonly {text: string; path: Path}[]): PlacedFault[] {
  const owners = new Map<string, Path>();
  return names.flatMap(({text, path}) => {
    const owner = owners.get(text);
    owners.set(text, owner ?? path);
    return owner ? [fault(path, `must be unique: "${text}" is already at ${formatPath(owner)}`)] : [];
  });
}

/** A registry without an upstream and without pushes would stay empty. */
function checkPush(name: string, registry: Tree): PlacedFault[] {
  const at: Path = ['registries', name, 'push'];
  if (registry['upstream'] !== undefined) return [];
  if (registry['push'] === 'deny')
    return [
      fault(at, 'leaves a registry without upstream empty: write local, or add the upstream to mirror'),
    ];
  if (registry['push'] === 'through')
    return [fault(at, 'needs an upstream to write to: write local, or add the upstream')];
  return [];
}

/** The first entry that matches counts, and one without a pattern matches every tag. */
function checkTags(name: string, {tags}: Tree): PlacedFault[] {
  if (!Array.isArray(tags)) return [];
  const at = (index: number): Path => ['registries', name, 'tags', index];
  return tags.flatMap((entry: unknown, index) => {
    const match = valueAt(entry, ['match']);
    if (Array.isArray(match) && match.length === 0)
      return [
        fault([...at(index), 'match'], 'is empty: name a pattern, or leave match out for all other tags'),
      ];
    return isRecord(entry) && match === undefined && index < tags.length - 1
      ? [
          fault(
            at(index),
            'has no match and so is for every tag; those after it would never count: put it last',
          ),
        ]
      : [];
  });
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
        'only permits http://, and certificates are always verified: remove it; to trust a private certificate authority use upstream.ca',
      ),
    ];
  return [];
}

/** Credentials are a user name with one password, or a Docker configuration. */
function checkCredentials(upstream: Tree, at: Path): PlacedFault[] {
  if (!isRecord(upstream['credentials'])) return [];
  const set = new Set(
    Object.entries(upstream['credentials']).flatMap(([key, value]) => (value === undefined ? [] : key)),
  );
  const passwords = Number(set.has('password')) + Number(set.has('passwordFile'));
  if (set.has('dockerConfig')) {
    return set.has('username') || passwords > 0
      ? [fault(at, 'must have either dockerConfig or username with a password, not both')]
      : [];
  }
  if (set.has('username') && passwords === 1) return [];
  return [fault(at, 'must have username with password or passwordFile, or dockerConfig alone')];
}

/** A setting that is allowed but may be a mistake. */
export interface Warning {
  /** The setting to check. */
  path: string;
  /** What may happen, and what to do. */
  problem: string;
}

/** The warnings about a valid configuration. */
export const configWarnings = (config: Config): Warning[] => [
  ...warnOfPushes(config),
  ...warnOfGlobs(config),
  ...config.registries.flatMap(warnOfNames),
  ...config.registries.flatMap(passthroughWarnings),
  ...config.access.issuers.flatMap(warnOfIssuer),
];

function warnOfPushes({listen, access, registries}: Config): Warning[] {
  const pushed = registries.filter(({push}) => push !== 'deny').map(({name}) => name);
  const open = listen.find(({address, serve}) => serve === 'main' && !isLocalOnly(address));
  if (pushed.length === 0 || access.rules || !open) return [];
  return [
    {
      path: 'access.rules',
      problem: `pushes to ${pushed.join(', ')} are refused on ${formatAddress(open.address)}: without rules they are accepted only through a loopback address. Write rules that say who may push, or listen on 127.0.0.1`,
    },
  ];
}

/** The patterns that cannot match any image of the configured registries. */
function warnOfGlobs({pins, cache, registries}: Config): Warning[] {
  const globs = [
    ...pins.map((glob, index) => ({path: formatPath(['pins', index]), glob})),
    ...cache.keep.map(({match}, index) => ({
      path: formatPath(['cache', 'keep', index, 'match']),
      glob: match,
    })),
  ];
  return globs.flatMap(({path, glob}) => {
    const problem = whyUnmatched(glob, registries);
    return problem === undefined ? [] : [{path, problem}];
  });
}

/** The patterns for repositories of one registry that cannot match any: they are written without the registry. */
function warnOfNames({name, library, repositories, tagRules}: RegistryConfig): Warning[] {
  const at = (...path: (string | number)[]) => formatPath(['registries', name, ...path]);
  const globs = [
    ...repositories.allow.map((glob, index) => ({path: at('repositories', 'allow', index), glob})),
    ...repositories.deny.map((glob, index) => ({path: at('repositories', 'deny', index), glob})),
    ...tagRules.flatMap(({match}, rule) =>
      match
        .map((glob, index) => ({path: at('tags', rule, 'match', index), glob}))
        .filter(({glob}) => glob.includes(':')),
    ),
  ];
  return globs.flatMap(({path, glob}) => {
    if (glob.startsWith(`${name}/`))
      return [{path, problem: `begins with the registry's own name: write ${glob.slice(name.length + 1)}`}];
    return library && !/\/|\*\*|\{/.test(glob)
      ? [
          {
            path,
            problem: `matches nothing: the repositories of ${name} have two components at least. Write library/${glob}`,
          },
        ]
      : [];
  });
}
