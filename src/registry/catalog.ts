import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../caller.ts';
import type {Metadata} from '../storage/metadata.ts';
import type {Access} from './access.ts';
import {byBytes, MAX_ENTRIES, type Page, type PageQuery} from './page.ts';
import type {Registries, Registry} from './registries.ts';

/** The repositories with cached or local content that the caller may pull from. */
export interface Catalog {
  /** All registries: names of the default one as they are, of the others with the registry in front. */
  ofAll(registries: Registries, query: PageQuery, caller: Caller): Promise<Page>;
  /** One registry, its names as they are. */
  ofOne(registry: Registry, query: PageQuery, caller: Caller): Promise<Page>;
}

export interface CatalogParts {
  metadata: Pick<Metadata, 'repositories'>;
  access: Pick<Access, 'visibleRepositories'>;
}

/** A registry, and the prefix of its names in the list. */
interface Section {
  readonly registry: Registry;
  readonly prefix: string;
}

export function createCatalog({metadata, access}: CatalogParts): Catalog {
  /** At most `limit` names after `last`, each as a client would write it here. */
  async function namesIn(
    {registry, prefix}: Section,
    last: string | undefined,
    limit: number,
    caller: Caller,
  ): Promise<string[]> {
    let after = positionWithin(prefix, last);
    const isVisible = access.visibleRepositories(registry, caller);
    if (!isVisible) return [];
    const visible: string[] = [];
    let size = limit;
    while (after !== 'past' && visible.length < limit) {
      const page = {limit: size, ...(after === undefined ? {} : {after})};
      const names = await metadata.repositories(registry.name, page);
      // Reads run on this thread, and everything may be hidden.
      if (size === MAX_ENTRIES) await nextTurn();
      for (const name of names) if (isVisible(name)) visible.push(prefix + name);
      after = names.length < size ? 'past' : names.at(-1);
      // Some are hidden, and many more may be: a short page must not take a query for each.
      size = MAX_ENTRIES;
    }
    return visible.slice(0, limit);
  }

  async function page(sections: Section[], {n, last}: PageQuery, caller: Caller): Promise<Page> {
    const limit = Math.min(n ?? MAX_ENTRIES, MAX_ENTRIES);
    if (limit === 0) return {entries: [], next: undefined};
    const lists = await Promise.all(sections.map((section) => namesIn(section, last, limit + 1, caller)));
    // The default registry may have a repository whose name begins with another registry's.
    const all = [...new Set(lists.flat())].sort(byBytes);
    const entries = all.slice(0, limit);
    return {entries, next: all.length > limit ? entries.at(-1) : undefined};
  }

  return {
    ofAll(registries, query, caller) {
      const prefixOf = (registry: Registry) => (registry === registries.default ? '' : `${registry.name}/`);
      const sections = registries.all.map((registry) => ({registry, prefix: prefixOf(registry)}));
      return page(sections, query, caller);
    },
    ofOne: (registry, query, caller) => page([{registry, prefix: ''}], query, caller),
  };
}

/** Where `last` lies among the names with a prefix: before all of them (undefined), past all, or after one of them. */
function positionWithin(prefix: string, last: string | undefined): string | 'past' | undefined {
  if (last === undefined || prefix === '') return last;
  if (last.startsWith(prefix)) return last.slice(prefix.length);
  return last < prefix ? undefined : 'past';
}
