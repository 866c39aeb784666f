import type {Metadata} from '../storage/metadata.ts';
import {byBytes, MAX_ENTRIES, type Page, type PageQuery} from './page.ts';
import type {Registries, Registry} from './registries.ts';

/** The repositories of which something is cached or kept here. */
export interface Catalog {
  /** All registries: names of the default one as they are, of the others with the registry in front. */
  ofAll(registries: Registries, query: PageQuery): Promise<Page>;
  /** One registry, its names as they are. */
  ofOne(registry: Registry, query: PageQuery): Promise<Page>;
}

export function createCatalog({metadata}: {metadata: Metadata}): Catalog {
  /** At most `limit` names after `last`, each as a client would write it here. */
  async function named(
    registry: Registry,
    prefix: string,
    last: string | undefined,
    limit: number,
  ): Promise<string[]> {
    const after = positionWithin(prefix, last);
    if (after === 'past') return [];
    const names = await metadata.repositories(registry.name, {
      limit,
      ...(after === undefined ? {} : {after}),
    });
    return names.map((name) => prefix + name);
  }

  async function page(shelves: {registry: Registry; prefix: string}[], {n, last}: PageQuery): Promise<Page> {
    const limit = Math.min(n ?? MAX_ENTRIES, MAX_ENTRIES);
    if (limit === 0) return {entries: [], next: undefined};
    const lists = await Promise.all(
      shelves.map(({registry, prefix}) => named(registry, prefix, last, limit + 1)),
    );
    // The default registry may have a repository whose name begins with another registry's.
    const all = [...new Set(lists.flat())].sort(byBytes);
    const entries = all.slice(0, limit);
    return {entries, next: all.length > limit ? entries.at(-1) : undefined};
  }

  return {
    ofAll: (registries, query) =>
      page(
        registries.all.map((registry) => ({
          registry,
          prefix: registry === registries.default ? '' : `${registry.name}/`,
        })),
        query,
      ),
    ofOne: (registry, query) => page([{registry, prefix: ''}], query),
  };
}

/** Where `last` lies among the names below a prefix: before all of them, after all, or after a name of theirs. */
function positionWithin(prefix: string, last: string | undefined): string | 'past' | undefined {
  if (last === undefined || prefix === '') return last;
  if (last.startsWith(prefix)) return last.slice(prefix.length);
  return last < prefix ? undefined : 'past';
}
