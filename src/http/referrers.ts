import {OciError} from '../oci/errors.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import type {Route} from '../registry/namespace.ts';
import type {Referrers} from '../registry/referrers/referrers.ts';
import {type Handler, nextLink, reportHeaders} from './answer.ts';
import {digestInPath, noCache, singleParameter} from './request.ts';

/** dist-spec, end-12a and end-12b: 200 for every valid digest, and exactly the index's media type. */
export const listReferrers =
  (referrers: Referrers): Handler<Route> =>
  async (request, route, caller) => {
    const subject = digestInPath(request);
    const types = typesOf(request.query['artifactType']);
    const after = parsePosition(singleParameter(request, 'last'));
    const options = {noCache: noCache(request)};
    const query = {types, after};
    const {body, next, report, repeat} = await referrers.list(route, subject, query, caller, options);
    return {
      status: 200,
      headers: {
        'Content-Type': OCI_INDEX,
        // dist-spec, Listing Referrers: only when a filter was requested and applied.
        'OCI-Filters-Applied': types && 'artifactType',
        Link: next === undefined ? undefined : nextLink(request, nextQuery(types, next)),
        ...reportHeaders(report),
      },
      body,
      report,
      repeat,
    };
  };

/** Repeated means "any of them"; present but empty counts. */
function typesOf(parameter: string | string[] | undefined): string[] | undefined {
  if (parameter === undefined) return undefined;
  return [...new Set([parameter].flat())].sort();
}

/** The position after which a page begins; only our own links contain one. @throws OciError 400 */
function parsePosition(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the query parameter last is "${text.slice(0, 40)}"; follow the Link of the previous page unchanged`,
  });
}

/** Every filter is repeated. */
function nextQuery(types: readonly string[] | undefined, next: number): URLSearchParams {
  const query = new URLSearchParams((types ?? []).map((type): [string, string] => ['artifactType', type]));
  query.set('last', String(next));
  return query;
}
