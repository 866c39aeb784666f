import {singleParameter} from './request.ts';
import type {Ctx} from './routing.ts';

/**
 * Links the next page (RFC 8288): path-absolute, in the client's own naming, and with its `ns` repeated.
 * @param query of the next page
 */
export function linkNext(ctx: Ctx, query: URLSearchParams): void {
  const ns = singleParameter(ctx.query['ns'], 'ns');
  if (ns !== undefined) query.set('ns', ns);
  // In quotes, as in the examples of the dist-spec: some clients look for exactly rel="next".
  ctx.set('Link', `<${ctx.path}?${query}>; rel="next"`);
}
