import type {Catalog} from '../registry/catalog.ts';
import type {Page, PageQuery} from '../registry/page.ts';
import type {TagLists} from '../registry/tag-lists.ts';
import {explain} from './cache-headers.ts';
import {type Ctx, noCache, registryAsked, routed} from './routing.ts';
import {parseCount, singleParameter} from './target.ts';

/** dist-spec, Listing Tags (end-8a, end-8b). */
export const listTags = (tagLists: TagLists) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const query = pageQuery(ctx);
  const page = await tagLists.list(route, query, ctx.state.caller, {noCache: noCache(ctx)});
  explain(ctx, page.report);
  linkNext(ctx, page, query);
  ctx.body = {name: route.asked, tags: page.entries};
};

/** What is cached or kept here; with `ns`, of one registry. */
export const listCatalog = (catalog: Catalog) => async (ctx: Ctx) => {
  const registry = registryAsked(ctx);
  const query = pageQuery(ctx);
  const page = registry
    ? await catalog.ofOne(registry, query)
    : await catalog.ofAll(ctx.state.registries, query);
  linkNext(ctx, page, query);
  ctx.body = {repositories: page.entries};
};

function pageQuery(ctx: Ctx): PageQuery {
  return {
    n: parseCount(singleParameter(ctx.query['n'], 'n')),
    last: singleParameter(ctx.query['last'], 'last'),
  };
}

/** Path-absolute and in the client's own naming, `n` and `ns` repeated. */
function linkNext(ctx: Ctx, {next}: Page, {n}: PageQuery): void {
  if (next === undefined) return;
  const query = new URLSearchParams({...(n === undefined ? {} : {n: String(n)}), last: next});
  const ns = singleParameter(ctx.query['ns'], 'ns');
  if (ns !== undefined) query.set('ns', ns);
  ctx.set('Link', `<${ctx.path}?${query}>; rel="next"`);
}
