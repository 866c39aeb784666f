import type {Catalog} from '../registry/catalog.ts';
import type {PageQuery} from '../registry/page.ts';
import type {TagLists} from '../registry/tags/tag-lists.ts';
import {explain} from './answer.ts';
import {linkNext} from './next-link.ts';
import {parseCount, singleParameter} from './request.ts';
import {type Ctx, noCache, registryAsked, routed} from './routing.ts';

/** dist-spec, Listing Tags (end-8a, end-8b). */
export const listTags = (tagLists: TagLists) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const query = pageQuery(ctx);
  const page = await tagLists.list(route, query, ctx.state.caller, {noCache: noCache(ctx)});
  explain(ctx, page.report);
  if (page.next !== undefined) linkNext(ctx, nextQuery(query, page.next));
  sendJson(ctx, {name: route.asked, tags: page.entries});
};

/** What is cached or kept here; of one registry where `ns` or the request's host says which. */
export const listCatalog = (catalog: Catalog) => async (ctx: Ctx) => {
  const registry = registryAsked(ctx);
  const query = pageQuery(ctx);
  const page = registry
    ? await catalog.ofOne(registry, query)
    : await catalog.ofAll(ctx.state.registries, query);
  if (page.next !== undefined) linkNext(ctx, nextQuery(query, page.next));
  sendJson(ctx, {repositories: page.entries});
};

/** As bytes, which are sent piece by piece when they are many. */
function sendJson(ctx: Ctx, value: object): void {
  ctx.type = 'json';
  ctx.body = Buffer.from(JSON.stringify(value));
}

function pageQuery(ctx: Ctx): PageQuery {
  return {
    n: parseCount(singleParameter(ctx.query['n'], 'n')),
    last: singleParameter(ctx.query['last'], 'last'),
  };
}

/** `n` is repeated. */
function nextQuery({n}: PageQuery, last: string): URLSearchParams {
  return new URLSearchParams({...(n === undefined ? {} : {n: String(n)}), last});
}
