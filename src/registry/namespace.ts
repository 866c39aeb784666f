import {OciError} from '../oci/errors.ts';
import {parseName, type RepositoryName} from '../oci/name.ts';
import type {RepositoryKey} from '../storage/metadata.ts';
import type {Place} from './access-rules.ts';
import type {Registries, Registry} from './registries.ts';

/** Where a request is routed to. It keeps its registry even when the configuration is reloaded meanwhile. */
export interface Route {
  readonly registry: Registry;
  /** As the metadata and the upstream know it. */
  readonly repository: RepositoryKey;
  /** As the client named it: responses name the repository the same way. */
  readonly asked: string;
}

export interface RequestedName {
  /** The part of the path between `/v2/` and `/manifests/`, `/blobs/` and so on, percent-decoded. */
  name: string;
  /** The `ns` query parameter that containerd sends to mirrors. */
  ns: string | undefined;
  /** The request's `Host`. */
  host: string | undefined;
}

/** What a request names leads to no registry of the configuration. Its message names those that are. */
export class UnknownRegistry extends OciError {
  /** What the request would be about if there were such a registry. */
  readonly place: Place;
  readonly #problem: string;

  constructor(place: Place, problem: string, known: readonly Pick<Registry, 'name'>[]) {
    const names = known.map(({name}) => name).join(', ');
    super('NAME_UNKNOWN', {message: `${problem}; configured are: ${names || 'none that you may pull from'}`});
    this.place = place;
    this.#problem = problem;
  }

  /** The same for somebody who may know only of these registries. */
  naming(known: readonly Pick<Registry, 'name'>[]): UnknownRegistry {
    return new UnknownRegistry(this.place, this.#problem, known);
  }
}

/**
 * Finds registry and repository: by `ns`, else by the first path component, else by the request's host, else in the
 * default registry. Names are looked up in the configuration, and never dialled. A name that begins with the host of a
 * registry that is not configured is not passed to a registry whose names never begin with a host.
 * @throws UnknownRegistry; OciError NAME_INVALID for a malformed name, whether or not its registry is configured.
 */
export function routeOf(registries: Registries, asked: RequestedName): Route {
  const {registry, rest} = locate(registries, asked);
  if (registry.library) refuseUnknownHost(registries, rest);
  const name = parseName(rest);
  return {
    registry,
    repository: {registry: registry.name, name: withLibrary(registry, name)},
    asked: asked.name,
  };
}

/**
 * For requests that name no repository: the registry that `ns` names, else the one that the request's host belongs to.
 * @returns undefined when neither names one
 * @throws UnknownRegistry
 */
export function registryOf(
  registries: Registries,
  {ns, host}: Omit<RequestedName, 'name'>,
): Registry | undefined {
  if (ns !== undefined) return registryNamed(registries, ns);
  return host === undefined ? undefined : registries.hosted(host);
}

/** @param name the repository's, where one is named */
function registryNamed(registries: Registries, ns: string, name?: string): Registry {
  const registry = namedIn(registries, ns);
  if (registry) return registry;
  const rest = name?.startsWith(`${ns}/`) ? name.slice(ns.length + 1) : name;
  throw notConfigured(registries, ns, rest === undefined ? undefined : parseName(rest));
}

function notConfigured({all}: Registries, name: string, repository: RepositoryName | undefined): OciError {
  const place = {registry: name, repository, tag: undefined};
  return new UnknownRegistry(place, `registry "${name.slice(0, 80)}" is not configured here`, all);
}

/** A domain name or an address, with an optional port. */
const HOST = /^[a-z0-9][a-z0-9._-]*(?::\d+)?$/i;

/** On Docker Hub no user or organization has a dot in its name: a name with one is a registry's host, or a typo of one. */
function refuseUnknownHost(registries: Registries, name: string): void {
  const [first = '', ...rest] = name.split('/');
  if (rest.length === 0 || !HOST.test(first) || !/[.:]/.test(first)) return;
  if (!namedIn(registries, first)) throw notConfigured(registries, first, parseName(rest.join('/')));
}

function locate(registries: Registries, {name, ns, host}: RequestedName): {registry: Registry; rest: string} {
  const slash = name.indexOf('/');
  const first = slash > 0 ? namedIn(registries, name.slice(0, slash)) : undefined;
  const afterFirst = name.slice(slash + 1);
  if (ns !== undefined) {
    const registry = registryNamed(registries, ns, name);
    // containerd's override_path gives /v2/ghcr.io/org/app?ns=ghcr.io, which names the registry twice.
    return {registry, rest: first === registry ? afterFirst : name};
  }
  if (first) return {registry: first, rest: afterFirst};
  const registry = registryOf(registries, {ns, host}) ?? registries.default;
  if (registry) return {registry, rest: name};
  parseName(name);
  const place =
    slash > 0
      ? {registry: name.slice(0, slash), repository: afterFirst, tag: undefined}
      : {registry: name, repository: undefined, tag: undefined};
  const problem = `repository "${name}" names no configured registry and there is no default one, so write REGISTRY/${name}`;
  throw new UnknownRegistry(place, problem, registries.all);
}

/** Non-ASCII letters that lower-case to ASCII ones, like the Kelvin sign, match nothing: no header could repeat them. */
const namedIn = (registries: Registries, text: string): Registry | undefined =>
  /^[!-~]+$/.test(text) ? registries.named(text) : undefined;

const withLibrary = (registry: Registry, name: RepositoryName): RepositoryName =>
  registry.library && !name.includes('/') ? parseName(`library/${name}`) : name;
