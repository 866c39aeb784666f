import type {Catalog} from '../registry/catalog.ts';
import type {Registry} from '../registry/registries.ts';
import {type Handler, nextLink} from './answer.ts';
import {nextQuery, pageQuery} from './request.ts';

/** The repositories that have content here, cached or pushed: those of one registry, or of all. */
export const listCatalog =
  (catalog: Catalog): Handler<Registry | undefined> =>
  async (request, registry, caller) => {
    const query = pageQuery(request);
    const {entries, next} = registry
      ? await catalog.ofOne(registry, query, caller)
      : await catalog.ofAll(request.registries, query, caller);
    return {
      status: 200,
      headers: {
        'Content-Type': 'application/json; charset=utf-8',
        Link: next === undefined ? undefined : nextLink(request, nextQuery(query, next)),
      },
      body: Buffer.from(JSON.stringify({repositories: entries})),
    };
  };
