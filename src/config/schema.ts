import * as z from 'zod';
import {accessSettings} from './access-settings.ts';
import type {Tree} from './tree.ts';
import {FOREVER_MS} from './units.ts';
import {
  auditTarget,
  choice,
  countOr,
  countOrOff,
  duration,
  durationOrForever,
  durationOrNever,
  fileMode,
  flag,
  host,
  imageGlob,
  integer,
  list,
  mapping,
  nameGlob,
  oneOrMany,
  path,
  percentage,
  proxy,
  repositoryGlob,
  sizeBetween,
  sizeOf,
  sizeOrOff,
  splitKept,
  splitText,
  splitWords,
  tagGlob,
  text,
  textOrList,
  url,
  volumeSize,
  volumeSizeOrOff,
} from './values.ts';

/** The shares of the limit above which images are evicted, and down to which. */
export const DEFAULT_WATERMARKS = {highWatermark: '95%', lowWatermark: '90%'};

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** How long something is kept; ten years is the longest. */
const lifetime = duration(0, FOREVER_MS);
/** A timer of Node that is set to more than 2^31-1 ms, between 24 and 25 days, fires at once. */
const MAX_TIMER_MS = 24 * DAY_MS;
const timeout = duration(1, MAX_TIMER_MS);

/** How much may run at the same time. */
const limit = integer(1, 1_000_000);

// assembleListen sets the default addresses.
const listener = mapping({
  host: text.optional(),
  port: integer(0, 65_535).optional(),
  socket: path.optional(),
  socketMode: fileMode.optional(),
  tls: mapping({cert: path, key: path, clientCa: path.optional()}).optional(),
  serve: choice('main', 'admin').prefault('main'),
  sendTimeout: timeout.prefault('60s'),
  trustedProxies: z.preprocess(splitText, list(proxy).prefault([])),
});

const credentials = mapping({
  username: text.optional(),
  password: text.optional(),
  passwordFile: path.optional(),
  dockerConfig: path.optional(),
});

/** In place of credentials: each caller's own. */
const passthrough = choice('passthrough');

const upstream = mapping({
  url,
  insecure: flag.prefault(false),
  credentials: z.union([credentials, passthrough]).optional(),
  realmHosts: list(host).prefault([]),
  redirectHosts: list(host).prefault([]),
  ca: textOrList(path).prefault([]),
  timeouts: mapping({
    connect: timeout.prefault('2s'),
    headers: timeout.prefault('5s'),
    idle: timeout.prefault('30s'),
  }).prefault({}),
  concurrency: mapping({
    heads: integer(1, 10_000).prefault(32),
    manifests: integer(1, 10_000).prefault(64),
    bodies: integer(1, 10_000).prefault(100),
  }).prefault({}),
  breaker: mapping({
    failures: integer(1, 1000).prefault(5),
    openFor: timeout.prefault('10s'),
  }).prefault({}),
  rateLimitStatus: choice(429, 503).prefault(503),
  quota: choice('off', 'gentle', 'strict').prefault('gentle'),
});

const tagLifetimes = {
  ttl: durationOrForever(FOREVER_MS).optional(),
  maxStale: durationOrForever(FOREVER_MS).optional(),
  keepDeleted: durationOrForever(FOREVER_MS).optional(),
  absentTtl: lifetime.optional(),
};

const registry = mapping({
  default: flag.prefault(false),
  aliases: list(host).prefault([]),
  hosts: list(host).prefault([]),
  library: flag.prefault(false),
  upstream: upstream.optional(),
  repositories: mapping({
    allow: list(nameGlob).prefault([]),
    deny: list(nameGlob).prefault([]),
  }).prefault({}),
  // assembleTags sets the defaults.
  tags: oneOrMany(
    mapping(tagLifetimes),
    mapping({match: textOrList(tagGlob).optional(), ...tagLifetimes}),
    Object.keys(tagLifetimes).join(', '),
  ).prefault({}),
  referrers: mapping({
    mode: choice('auto', 'api', 'tag', 'off').prefault('auto'),
    ttl: lifetime.prefault('60s'),
    maxStale: lifetime.prefault('7d'),
    prefetch: choice('manifests', 'all', 'off').prefault('manifests'),
    keep: countOrOff(1, 1_000_000).prefault('off'),
  }).prefault({}),
  // Its default depends on whether there is an upstream.
  push: choice('deny', 'local', 'through').optional(),
  validate: mapping({
    blobs: flag.prefault(true),
    children: flag.prefault(true),
    sizes: flag.prefault(false),
  }).prefault({}),
  overlay: mapping({tags: choice('deny', 'allow').prefault('deny')}).prefault({}),
  // backref reads at most this much of an upstream's manifest.
  maxManifest: sizeBetween(64 * 2 ** 10, 16 * 2 ** 20).prefault('4MiB'),
  limits: mapping({
    children: integer(1, 1_000_000).prefault(50_000),
    depth: integer(1, 100).prefault(8),
    blob: sizeOrOff(1).prefault('off'),
    repository: sizeOrOff(1).prefault('off'),
  }).prefault({}),
}).prefault({} as never);

/**
 * The registries without a configuration: Docker Hub at the root, the others by `ns` or by path prefix. They are the
 * same in `config/backref.yaml`.
 */
export const BUILT_IN_REGISTRIES: Tree = {
  'docker.io': {
    default: true,
    aliases: ['index.docker.io', 'registry-1.docker.io'],
    library: true,
    upstream: {url: 'https://registry-1.docker.io'},
  },
  'ghcr.io': {upstream: {url: 'https://ghcr.io'}},
  'quay.io': {upstream: {url: 'https://quay.io'}},
  'gcr.io': {upstream: {url: 'https://gcr.io'}},
  'registry.k8s.io': {upstream: {url: 'https://registry.k8s.io'}},
  'mcr.microsoft.com': {upstream: {url: 'https://mcr.microsoft.com'}},
  'public.ecr.aws': {upstream: {url: 'https://public.ecr.aws'}},
};

/** Each takes memory, and asks one thread for what it does not have. */
const MAX_WORKERS = 64;

/** The shape of the configuration file, with every default. Parses units; does not read the files that it names. */
export const settingsSchema = mapping({
  listen: oneOrMany(listener, listener, Object.keys(listener.shape).join(', ')).prefault({}),
  // assembleStorage sets the default paths.
  storage: mapping({
    path: path.optional(),
    blobs: mapping({driver: choice('fs').prefault('fs'), path: path.optional()}).prefault({}),
    metadata: mapping({driver: choice('sqlite').prefault('sqlite'), path: path.optional()}).prefault({}),
  }).prefault({}),
  cache: mapping({
    // To lru-cache, 0 means no limit.
    memory: sizeOf(2 ** 20).prefault('256MiB'),
    maxSize: volumeSizeOrOff(2 ** 20).prefault('80%'),
    minFree: volumeSize.prefault('5%'),
    highWatermark: percentage(1, 100).prefault(DEFAULT_WATERMARKS.highWatermark),
    lowWatermark: percentage(1, 100).prefault(DEFAULT_WATERMARKS.lowWatermark),
    keep: z.preprocess(
      splitKept,
      list(mapping({match: repositoryGlob, newest: integer(1, 1_000_000)})).prefault([]),
    ),
  }).prefault({}),
  access: accessSettings,
  workers: countOr('auto', 1, MAX_WORKERS).prefault('auto'),
  pins: z.preprocess(splitWords, list(imageGlob).prefault([])),
  shutdown: mapping({grace: duration(0, MAX_TIMER_MS).prefault('30s')}).prefault({}),
  limits: mapping({
    connections: mapping({total: limit.prefault(25_000), perAddress: limit.prefault(20_000)}).prefault({}),
    requests: mapping({
      total: limit.prefault(25_000),
      perCaller: limit.prefault(20_000),
      pipelined: integer(1, 10_000).prefault(100),
    }).prefault({}),
    uploads: mapping({
      total: limit.prefault(2000),
      perCaller: limit.prefault(1000),
      unfinished: limit.prefault(10_000),
    }).prefault({}),
    headers: mapping({
      // An overlong target is read whole, and answered with 414.
      size: sizeBetween(16 * 2 ** 10, 2 ** 20).prefault('32KiB'),
      count: integer(20, 10_000).prefault(200),
      timeout: timeout.prefault('30s'),
    }).prefault({}),
    bodies: mapping({
      timeout: timeout.prefault('60s'),
      minRate: sizeBetween(0, 2 ** 20).prefault('1KiB'),
      maxForm: sizeBetween(4 * 2 ** 10, 2 ** 20).prefault('64KiB'),
    }).prefault({}),
  }).prefault({}),
  uploads: mapping({expireAfter: duration(1000, 365 * DAY_MS).prefault('24h')}).prefault({}),
  garbage: mapping({
    interval: duration(0, MAX_TIMER_MS).prefault('1h'),
    grace: lifetime.prefault('24h'),
  }).prefault({}),
  scrub: mapping({every: durationOrNever(HOUR_MS, 3650 * DAY_MS).prefault('30d')}).prefault({}),
  log: mapping({
    level: choice('debug', 'info', 'warn', 'error', 'silent').prefault('info'),
    format: choice('pretty', 'json').prefault('pretty'),
  }).prefault({}),
  audit: mapping({
    to: auditTarget.prefault('off'),
    maxSize: sizeOf(2 ** 16).prefault('100MiB'),
    keep: integer(1, 10_000).prefault(10),
  }).prefault({}),
  registries: z
    .record(z.string(), registry, {error: 'must be a mapping of registry names to their settings'})
    .prefault(BUILT_IN_REGISTRIES as never),
});

export type Settings = z.output<typeof settingsSchema>;

/** The keys of the mapping at a path of the settings; empty when there is no mapping. */
export function knownKeys(path: readonly PropertyKey[]): string[] {
  const schema = path.reduce<unknown>(step, settingsSchema);
  const target = unwrapped(schema);
  return target instanceof z.ZodObject ? Object.keys(target.shape) : [];
}

/** The paths of all settings; `NAME` stands for the name of a registry. */
export function settingPaths(schema: unknown = settingsSchema, path: readonly string[] = []): string[][] {
  const target = unwrapped(schema);
  if (target instanceof z.ZodRecord) return settingPaths(target.valueType, [...path, 'NAME']);
  if (!(target instanceof z.ZodObject)) return [[...path]];
  return Object.entries(target.shape).flatMap(([key, inner]) => settingPaths(inner, [...path, key]));
}

/** What only the file can have. */
const FILE_ONLY = [
  ['registries'],
  ['access', 'rules'],
  ['access', 'groups'],
  ['access', 'issuers'],
  ['access', 'certificates'],
];

/** The paths of the settings that have an environment variable. */
export const scalarPaths = (): string[][] =>
  settingPaths().filter((path) => !FILE_ONLY.some((keys) => keys.every((key, index) => path[index] === key)));

function step(schema: unknown, key: PropertyKey): unknown {
  if (typeof key === 'number') return itemOf(schema);
  const target = unwrapped(schema);
  if (target instanceof z.ZodObject) return target.shape[String(key)];
  return target instanceof z.ZodRecord ? target.valueType : undefined;
}

/** What a list holds, also where it may stand for a mapping. */
function itemOf(schema: unknown): unknown {
  const target = withoutDefault(schema);
  const lists = target instanceof z.ZodUnion ? target.options : [target];
  return lists.find((option) => option instanceof z.ZodArray)?.element;
}

/** Of a mapping that may also be a list of mappings, the mapping. */
function unwrapped(schema: unknown): unknown {
  const target = withoutDefault(schema);
  return target instanceof z.ZodUnion ? target.options[0] : target;
}

function withoutDefault(schema: unknown): unknown {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional)
    return withoutDefault(schema.unwrap());
  const isPreprocessed = schema instanceof z.ZodPipe && schema.in instanceof z.ZodTransform;
  return isPreprocessed ? withoutDefault(schema.out) : schema;
}
