import {OciError} from '../oci/errors.ts';
import {parseNameGlob} from '../oci/image-glob.ts';
import type {RepositoryName} from '../oci/name.ts';
import type {Route} from './namespace.ts';
import type {Registries} from './registries.ts';

interface Patterns {
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

/**
 * Which repositories a registry serves: those that a pattern of `allow` matches, or all where there is none, without
 * those that a pattern of `deny` matches. Text that `parseNameGlob` does not read matches nothing.
 */
export function servedRepositories({allow, deny}: Patterns): (repository: RepositoryName) => boolean {
  const isAllowed = allow.length === 0 ? () => true : matcherOf(allow);
  const isDenied = matcherOf(deny);
  return (repository) => isAllowed(repository) && !isDenied(repository);
}

function matcherOf(patterns: readonly string[]): (repository: RepositoryName) => boolean {
  const globs = patterns.flatMap((pattern) => parseNameGlob(pattern) ?? []);
  return (repository) => globs.some((glob) => glob.matches(repository));
}

/** The answer about a repository that the configuration leaves out. It is the same whether or not it is stored here. */
export const notServed = ({registry, asked}: Route, code: 'NAME_UNKNOWN' | 'DENIED'): OciError =>
  new OciError(code, {
    message: `the configuration of registry ${registry.name} does not serve repository ${asked}: allow it in registries.${registry.name}.repositories, or ask the operator to`,
    detail: {name: asked, registry: registry.name},
  });

/** Whether the registries, as they are configured now, still serve what a request was once routed to. */
export const isStillServed = ({all}: Registries, {registry, repository}: Route): boolean =>
  all.some(({name, serves}) => name === registry.name && serves(repository.name));

/** For work that no client's request asks for, which does not pass the door. @throws OciError NAME_UNKNOWN */
export function requireServed(route: Route): void {
  if (!route.registry.serves(route.repository.name)) throw notServed(route, 'NAME_UNKNOWN');
}
