import type {Route} from '../registry/namespace.ts';
import {singleParameter} from './request.ts';
import type {Ctx} from './routing.ts';

/** A place in the client's repository for `Location`: path-absolute and in the client's own naming, `ns` repeated. */
export function locationOf(ctx: Ctx, {asked}: Route, place: string): string {
  const ns = singleParameter(ctx.query['ns'], 'ns');
  const query = ns === undefined ? '' : `?${new URLSearchParams({ns})}`;
  return `/v2/${asked}/${place}${query}`;
}
