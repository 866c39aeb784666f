import {parseDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import type {Referrers} from '../registry/referrers/referrers.ts';
import {explain} from './answer.ts';
import {linkNext} from './next-link.ts';
import {singleParameter} from './request.ts';
import {type Ctx, noCache, routed} from './routing.ts';

/** dist-spec, end-12a and end-12b: 200 for every valid digest, and exactly the index's media type. */
export const listReferrers = (referrers: Referrers) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const subject = parseDigest(ctx.params['digest'] ?? '');
  const types = typesOf(ctx.query['artifactType']);
  const after = parsePosition(singleParameter(ctx.query['last'], 'last'));
  const query = {types, after};
  const options = {noCache: noCache(ctx)};
  const {body, next, report} = await referrers.list(route, subject, query, ctx.state.caller, options);
  explain(ctx, report);
  // dist-spec, Listing Referrers: only when a filter was asked for and applied.
  if (types) ctx.set('OCI-Filters-Applied', 'artifactType');
  if (next !== undefined) linkNext(ctx, nextQuery(types, next));
  ctx.body = body;
  ctx.set('Content-Type', OCI_INDEX);
};

/** Repeated is "any of them"; present but empty counts. */
function typesOf(parameter: string | string[] | undefined): string[] | undefined {
  if (parameter === undefined) return undefined;
  return [...new Set([parameter].flat())].sort();
}

/** A position is ours to make and to read. @throws OciError 400 */
function parsePosition(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the query parameter last is "${text.slice(0, 40)}"; follow the Link of the page before as it stands`,
  });
}

/** Every filter is repeated. */
function nextQuery(types: readonly string[] | undefined, next: number): URLSearchParams {
  const query = new URLSearchParams((types ?? []).map((type): [string, string] => ['artifactType', type]));
  query.set('last', String(next));
  return query;
}
