import {OciError} from '../oci/errors.ts';
import {parseName, type RepositoryName} from '../oci/name.ts';
import type {RepositoryKey} from '../storage/metadata.ts';
import type {Registries, Registry} from './registries.ts';

/** A repository, be it of a registry that is not configured. */
export interface Place {
  /** As the metadata and the upstream know it. */
  readonly repository: RepositoryKey;
}

/** Where a request belongs. It keeps the registry that it was routed with, whatever is configured meanwhile. */
export interface Route extends Place {
  readonly registry: Registry;
  /** As the client named it, for everything that names the repository on the way out. */
  readonly asked: string;
}

export interface Asked {
  /** What stood between `/v2/` and `/manifests/` and the like, percent-decoded. */
  name: string;
  /** The `ns` query parameter that containerd sends to mirrors. */
  ns: string | undefined;
  /** The request's `Host`. */
  host: string | undefined;
}

/**
 * Finds registry and repository: by `ns`, else by the first path component, else by the request's host, else the
 * default registry. Names are keys into the configuration, never addresses to dial. A name that begins with the host of
 * a registry that is not configured is not passed to one whose names never begin with a host.
 * @throws OciError NAME_UNKNOWN for a registry that is not configured, NAME_INVALID for a malformed name.
 */
export function routeOf(registries: Registries, asked: Asked): Route {
  const {registry, rest} = place(registries, asked);
  if (registry.library) refuseStrangeHost(registries, rest);
  const name = parseName(rest);
  return {
    registry,
    repository: {registry: registry.name, name: withLibrary(registry, name)},
    asked: asked.name,
  };
}

/**
 * For requests that name no repository: the registry that `ns` names, else the one that the request's host means.
 * @returns undefined when neither says which
 * @throws OciError NAME_UNKNOWN for a registry that is not configured
 */
export function registryOf(registries: Registries, {ns, host}: Omit<Asked, 'name'>): Registry | undefined {
  if (ns !== undefined) return registryNamed(registries, ns);
  return host === undefined ? undefined : registries.hosted(host);
}

function registryNamed(registries: Registries, ns: string): Registry {
  const registry = namedIn(registries, ns);
  if (registry) return registry;
  throw notConfigured(registries, ns);
}

function notConfigured({all}: Registries, name: string): OciError {
  const known = all.map((registry) => registry.name).join(', ');
  return new OciError('NAME_UNKNOWN', {
    message: `registry "${name.slice(0, 80)}" is not configured here; configured are: ${known}`,
  });
}

/** A domain name or an address, with its port if it has one; one word without a port is the name of a user. */
const HOST = /^[a-z0-9][a-z0-9._-]*(?::\d+)?$/i;

/** On Docker Hub no name of a user or an organization has a dot: what has one is a registry's host, or a typo of one. */
function refuseStrangeHost(registries: Registries, name: string): void {
  const [first = '', ...rest] = name.split('/');
  if (rest.length === 0 || !HOST.test(first) || !/[.:]/.test(first)) return;
  if (!namedIn(registries, first)) throw notConfigured(registries, first);
}

function place(registries: Registries, {name, ns, host}: Asked): {registry: Registry; rest: string} {
  const slash = name.indexOf('/');
  const first = slash > 0 ? namedIn(registries, name.slice(0, slash)) : undefined;
  const afterFirst = name.slice(slash + 1);
  if (ns !== undefined) {
    const registry = registryNamed(registries, ns);
    // containerd's override_path gives /v2/ghcr.io/org/app?ns=ghcr.io: the registry named twice.
    return {registry, rest: first === registry ? afterFirst : name};
  }
  if (first) return {registry: first, rest: afterFirst};
  const registry = registryOf(registries, {ns, host}) ?? registries.default;
  if (registry) return {registry, rest: name};
  parseName(name);
  throw new OciError('NAME_UNKNOWN', {
    message: `repository "${name}" names no configured registry and there is no default one; write one of ${registries.all.map((entry) => `${entry.name}/…`).join(', ')}`,
  });
}

/** Letters that merely lower-case to ASCII, like the Kelvin sign, name nothing here: no header could repeat them. */
const namedIn = (registries: Registries, text: string): Registry | undefined =>
  /^[!-~]+$/.test(text) ? registries.named(text) : undefined;

const withLibrary = (registry: Registry, name: RepositoryName): RepositoryName =>
  registry.library && !name.includes('/') ? parseName(`library/${name}`) : name;
