import type {RouterContext} from '@koa/router';
import {type Route, registryOf, routeOf} from '../registry/namespace.ts';
import type {Registry} from '../registry/registries.ts';
import {singleParameter} from './request.ts';
import type {RequestState} from './state.ts';

export type Ctx = RouterContext<RequestState>;

/** The repository that a request names; the answer says which registry `ns` chose (dist-spec, Registry Proxying). */
export function routed(ctx: Ctx): Route {
  const ns = singleParameter(ctx.query['ns'], 'ns');
  const route = routeOf(ctx.state.registries, {
    name: ctx.params['name'] ?? '',
    ns,
    host: ctx.get('Host') || undefined,
  });
  if (ns !== undefined) ctx.set('OCI-Namespace', ns);
  ctx.state.registry = route.registry.name;
  return route;
}

/** For a request that names no repository: the registry that `ns` names, else the one that the request's host means. */
export function registryAsked(ctx: Ctx): Registry | undefined {
  const ns = singleParameter(ctx.query['ns'], 'ns');
  const registry = registryOf(ctx.state.registries, {ns, host: ctx.get('Host') || undefined});
  if (ns !== undefined) ctx.set('OCI-Namespace', ns);
  if (registry) ctx.state.registry = registry.name;
  return registry;
}

/** True when the client wants the upstream asked (RFC 9111, section 5.2.1.4). */
export const noCache = (ctx: Ctx): boolean =>
  /(?:^|,)\s*(?:no-cache|max-age=0)\s*(?:,|$)/i.test(ctx.get('Cache-Control')) ||
  /no-cache/i.test(ctx.get('Pragma'));
