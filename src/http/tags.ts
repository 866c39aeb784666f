import type {Route} from '../registry/namespace.ts';
import type {TagLists} from '../registry/tags/tag-lists.ts';
import {type Handler, nextLink, reportHeaders} from './answer.ts';
import {nextQuery, noCache, pageQuery} from './request.ts';

/** dist-spec, Listing Tags (end-8a, end-8b). */
export const listTags =
  (tagLists: TagLists): Handler<Route> =>
  async (request, route, caller) => {
    const query = pageQuery(request);
    const {entries, next, report} = await tagLists.list(route, query, caller, {noCache: noCache(request)});
    return {
      status: 200,
      headers: {
        'Content-Type': 'application/json; charset=utf-8',
        Link: next === undefined ? undefined : nextLink(request, nextQuery(query, next)),
        ...reportHeaders(report),
      },
      body: Buffer.from(JSON.stringify({name: route.asked, tags: entries})),
      report,
    };
  };
