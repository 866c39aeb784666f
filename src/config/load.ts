import {readFile as readFileOfDisk} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import type {Config, CredentialsConfig, IssuerConfig, RegistryConfig, UpstreamConfig} from '../config.ts';
import {errorCode} from '../error-code.ts';
import {crossChecks, shapeFaults} from './checks.ts';
import {parseSettings} from './document.ts';
import {
  applyOverrides,
  CONFIG_VARIABLE,
  type Environment,
  substitute,
  unknownVariables,
} from './environment.ts';
import {ConfigError, type Fault, type PlacedFault, shownValue} from './fault.ts';
import {describeReadError, keyPairFaults, type ReadFile, readNamedFiles, withoutNewline} from './files.ts';
import {assembleListen} from './listen-settings.ts';
import {type Settings, scalarPaths, settingsSchema} from './schema.ts';
import {assembleTags} from './tags.ts';
import {formatPath} from './tree.ts';

/** Read if it exists, when neither `--config` nor BACKREF_CONFIG names a file. */
const DEFAULT_FILE = 'config/backref.yaml';
const BUILT_IN = 'built-in default';
/** The default of `storage.path`. */
const DEFAULT_FOLDER = './data';

export interface LoadOptions {
  /** The configuration file; overrides BACKREF_CONFIG. */
  file?: string;
  /** Default: the process's. */
  env?: Environment;
  /** Reads the configuration file and the files that it names. Default: from disk. */
  readFile?: ReadFile;
  /** Does not look at the key pairs for TLS: a running server keeps the last one that it could use. */
  leavesKeyPairs?: boolean;
}

export interface Loaded {
  config: Config;
  /** The file that was read, or `built-in default`. */
  source: string;
}

/**
 * Loads the configuration: the file, the BACKREF_* variables that override it, `${VAR}` in its values, and the files that
 * it names. Relative paths, including those in settings, start at the working directory.
 * @returns the complete configuration, frozen, and where it was read from.
 * @throws ConfigError with every fault at once.
 */
export async function load(options: LoadOptions = {}): Promise<Loaded> {
  const {env = process.env, readFile = (path) => readFileOfDisk(path, 'utf8')} = options;
  const {source, file} = await openSettings(options.file ?? env[CONFIG_VARIABLE], readFile);
  const scalars = scalarPaths();
  if (!file.readable)
    throw new ConfigError(source, [...file.faults, ...unknownVariables(env, scalars, new Set())]);

  const {tree: written, sources, faults: unusable} = applyOverrides(file.tree, env, scalars);
  const {tree, names, faults: unset} = substitute(written, env);
  const shape = settingsSchema.safeParse(tree);
  const files = await readNamedFiles(tree, readFile);
  const keyPairs = options.leavesKeyPairs ? [] : await keyPairFaults(tree, readFile);
  const wrong = [
    ...unset,
    ...(shape.success ? [] : shapeFaults(shape.error)),
    ...crossChecks(tree),
    ...files.faults,
    ...keyPairs,
  ];
  const place = ({at, hideValue, ...fault}: PlacedFault): Fault => {
    const value = hideValue ? undefined : shownValue(written, at);
    const where = sources.get(formatPath(at)) ?? (source === BUILT_IN ? undefined : file.locate(at));
    return {...fault, ...(value === undefined ? {} : {value}), ...(where === undefined ? {} : {where})};
  };
  const faults = [
    ...file.faults,
    ...firstOfEachPath(wrong).map(place),
    ...unusable,
    ...unknownVariables(env, scalars, names),
  ];
  if (!shape.success || faults.length > 0) throw new ConfigError(source, faults);
  return {config: deepFreeze(assemble(shape.data, files.contents)), source};
}

/** Loads the configuration alone. @throws ConfigError as `load` does. */
export const loadConfig = async (options: LoadOptions = {}): Promise<Config> => (await load(options)).config;

async function openSettings(named: string | undefined, readFile: ReadFile) {
  const path = named ?? DEFAULT_FILE;
  try {
    return {source: path, file: parseSettings(await readFile(path), path)};
  } catch (error) {
    if (named === undefined && isMissing(error)) return {source: BUILT_IN, file: parseSettings('', BUILT_IN)};
    throw new ConfigError(path, [
      {path: '', where: path || CONFIG_VARIABLE, problem: describeReadError(error)},
    ]);
  }
}

const isMissing = (error: unknown): boolean => errorCode(error) === 'ENOENT';

/** One mistake often causes several faults at a path; the first says what to do. */
function firstOfEachPath(faults: readonly PlacedFault[]): PlacedFault[] {
  const seen = new Set<string>();
  return faults.filter(({path}) => !seen.has(path) && seen.add(path));
}

function assemble(settings: Settings, contents: ReadonlyMap<string, string>): Config {
  const {listen, storage, cache, access, audit, registries, ...rest} = settings;
  return {
    ...rest,
    listen: assembleListen(listen),
    cache: {...cache, maxSize: cache.maxSize === 'off' ? undefined : cache.maxSize},
    audit: {...audit, to: audit.to === 'off' ? undefined : audit.to},
    storage: assembleStorage(storage),
    access: assembleAccess(access, contents),
    registries: Object.entries(registries).map(
      ([name, {upstream, push, tags, referrers, limits, ...registry}]): RegistryConfig => ({
        name,
        ...registry,
        ...assembleTags(tags, {isPassthrough: upstream?.credentials === 'passthrough'}),
        upstream: upstream && assembleUpstream(upstream, contents),
        referrers: {...referrers, keep: unlessOff(referrers.keep)},
        limits: {...limits, blob: unlessOff(limits.blob), repository: unlessOff(limits.repository)},
        push: push ?? (upstream ? 'deny' : 'local'),
      }),
    ),
  };
}

const unlessOff = <T>(value: T | 'off'): T | undefined => (value === 'off' ? undefined : value);

/** The users stay in their file, which is read again when it changes. */
const assembleAccess = (
  {users, tokens, rules, issuers, certificates, ...access}: Settings['access'],
  contents: ReadonlyMap<string, string>,
): Config['access'] => ({
  ...access,
  rules,
  issuers: issuers.map((issuer) => assembleIssuer(issuer, contents)),
  certificates: certificates.map(({subject, san, user}) => ({subject, san, user})),
  users: {htpasswd: users.htpasswd},
  tokens: {
    service: tokens.service,
    ttl: tokens.ttl,
    key: tokens.key === undefined ? undefined : contents.get(tokens.key),
    realm: tokens.realm,
  },
});

/**
 * Blobs and metadata follow `storage.path`. When only the metadata has a path, the lock and the admin socket stay beside
 * it, so that a configuration that sets both paths needs no third folder.
 */
function assembleStorage({path, blobs, metadata}: Settings['storage']): Config['storage'] {
  const folder = path ?? DEFAULT_FOLDER;
  return {
    path: path ?? (metadata.path === undefined ? DEFAULT_FOLDER : dirname(metadata.path)),
    blobs: {...blobs, path: blobs.path ?? folder},
    metadata: {...metadata, path: metadata.path ?? join(folder, 'meta.db')},
  };
}

const assembleIssuer = (
  {jwks, claims, maxAge, ca, ...issuer}: Settings['access']['issuers'][number],
  contents: ReadonlyMap<string, string>,
): IssuerConfig => ({...issuer, jwks, claims, maxAge, ca: textsOf(ca, contents)});

const textsOf = (paths: readonly string[], contents: ReadonlyMap<string, string>): string[] =>
  paths.map((path) => contents.get(path) ?? '');

type UpstreamSettings = NonNullable<Settings['registries'][string]['upstream']>;
type CredentialSettings = Exclude<NonNullable<UpstreamSettings['credentials']>, 'passthrough'>;

const assembleUpstream = (
  upstream: UpstreamSettings,
  contents: ReadonlyMap<string, string>,
): UpstreamConfig => ({
  ...upstream,
  credentials:
    upstream.credentials === 'passthrough'
      ? {kind: 'passthrough'}
      : upstream.credentials && assembleCredentials(upstream.credentials, contents),
  ca: textsOf(upstream.ca, contents),
});

/** The checks ensure that the settings are one of the allowed combinations. */
function assembleCredentials(
  {username = '', password, passwordFile = '', dockerConfig}: CredentialSettings,
  contents: ReadonlyMap<string, string>,
): CredentialsConfig {
  if (dockerConfig !== undefined) return {kind: 'docker-config', path: dockerConfig};
  return {kind: 'basic', username, password: password ?? withoutNewline(contents.get(passwordFile) ?? '')};
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) Object.values(value).forEach(deepFreeze);
  return Object.freeze(value);
}
