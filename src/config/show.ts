import {stringify} from 'yaml';
import type {Config, RegistryConfig, UpstreamConfig, VolumeSize} from '../config.ts';
import {describeIssuer} from './issuer-settings.ts';
import {describeListen} from './listen-settings.ts';
import {describeTags} from './tags.ts';
import type {Tree} from './tree.ts';
import {formatDuration, formatPercentage, formatSize} from './units.ts';

/** The configuration in the shape and the units of the file, without secrets and certificates. */
export function describeConfig({
  listen,
  cache,
  access,
  audit,
  limits,
  shutdown,
  uploads,
  garbage,
  scrub,
  registries,
  ...rest
}: Config): Tree {
  return {
    listen: describeListen(listen),
    ...rest,
    cache: describeCache(cache),
    access: describeAccess(access),
    audit: {...audit, to: audit.to ?? 'off', maxSize: formatSize(audit.maxSize)},
    shutdown: inDurations(shutdown),
    limits: describeLimits(limits),
    uploads: inDurations(uploads),
    garbage: inDurations(garbage),
    scrub: inDurations(scrub),
    registries: Object.fromEntries(registries.map((registry) => [registry.name, describeRegistry(registry)])),
  };
}

const describeAccess = ({tokens: {key, ttl, ...tokens}, issuers, ...access}: Config['access']): Tree => ({
  ...access,
  issuers: issuers.map(describeIssuer),
  tokens: {...tokens, ttl: formatDuration(ttl), ...(key === undefined ? {} : {key: '[redacted]'})},
});

const describeCache = ({keep, ...cache}: Config['cache']): Tree => ({
  memory: formatSize(cache.memory),
  maxSize: cache.maxSize ? describeVolumeSize(cache.maxSize) : 'off',
  minFree: describeVolumeSize(cache.minFree),
  highWatermark: formatPercentage(cache.highWatermark),
  lowWatermark: formatPercentage(cache.lowWatermark),
  keep,
});

const describeLimits = ({headers, bodies, ...counts}: Config['limits']): Tree => ({
  ...counts,
  headers: {...headers, size: formatSize(headers.size), timeout: formatDuration(headers.timeout)},
  bodies: {
    timeout: formatDuration(bodies.timeout),
    minRate: formatSize(bodies.minRate),
    maxForm: formatSize(bodies.maxForm),
  },
});

const describeVolumeSize = (size: VolumeSize): string =>
  'percent' in size ? formatPercentage(size.percent) : formatSize(size.bytes);

/** The same as the text of a configuration file. */
export const formatConfig = (config: Config): string => stringify(describeConfig(config));

function describeRegistry({
  name,
  upstream,
  tags,
  tagRules,
  referrers,
  maxManifest,
  limits,
  ...rest
}: RegistryConfig): Tree {
  return {
    ...rest,
    ...(upstream ? {upstream: describeUpstream(upstream)} : {}),
    tags: describeTags({tags, tagRules}),
    referrers: {
      ...referrers,
      ttl: formatDuration(referrers.ttl),
      maxStale: formatDuration(referrers.maxStale),
      keep: referrers.keep ?? 'off',
    },
    maxManifest: formatSize(maxManifest),
    limits: {
      ...limits,
      blob: limits.blob === undefined ? 'off' : formatSize(limits.blob),
      repository: limits.repository === undefined ? 'off' : formatSize(limits.repository),
    },
  };
}

const describeUpstream = ({credentials, ca, timeouts, breaker, ...rest}: UpstreamConfig): Tree => ({
  ...rest,
  credentials: credentials && describeCredentials(credentials),
  ca: ca.map((pem) => `[${pem.length} characters of PEM]`),
  timeouts: inDurations(timeouts),
  breaker: {...breaker, openFor: formatDuration(breaker.openFor)},
});

function describeCredentials(credentials: NonNullable<UpstreamConfig['credentials']>): Tree | 'passthrough' {
  switch (credentials.kind) {
    case 'passthrough':
      return 'passthrough';
    case 'docker-config':
      return {dockerConfig: credentials.path};
    case 'basic':
      return {username: credentials.username, password: '[redacted]'};
  }
}

const inDurations = (times: Record<string, number>): Tree =>
  Object.fromEntries(Object.entries(times).map(([key, ms]) => [key, formatDuration(ms)]));
