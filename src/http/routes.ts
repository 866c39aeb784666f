import Router, {type RouterContext} from '@koa/router';
import type {DefaultState} from 'koa';
import type {Action, Caller} from '../caller.ts';
import type {RequestKind} from '../events.ts';
import {isDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {type Access, type Decision, denial} from '../registry/access.ts';
import type {Blobs} from '../registry/blobs/blobs.ts';
import type {Catalog} from '../registry/catalog.ts';
import type {Manifests} from '../registry/manifests/manifests.ts';
import {type Route, registryOf, routeOf} from '../registry/namespace.ts';
import type {Push} from '../registry/push/push.ts';
import type {Readiness} from '../registry/readiness.ts';
import type {Referrers} from '../registry/referrers/referrers.ts';
import type {Registries, Registry} from '../registry/registries.ts';
import type {TagLists} from '../registry/tags/tag-lists.ts';
import type {Answer, Handler} from './answer.ts';
import {deleteBlob, getBlob, headBlob} from './blobs.ts';
import {listCatalog} from './catalog.ts';
import {getHealth, getMetrics, getReadiness, type MetricsSource, ping} from './health.ts';
import {deleteManifest, getManifest, headManifest, putManifest} from './manifests.ts';
import {listReferrers} from './referrers.ts';
import {headerOf, type Request, singleParameter} from './request.ts';
import type {Exchange} from './send.ts';
import {listTags} from './tags.ts';
import {appendUpload, beginUpload, cancelUpload, finishUpload, getUpload} from './uploads.ts';

export interface Verbs {
  manifests: Manifests;
  blobs: Blobs;
  tagLists: TagLists;
  catalog: Catalog;
  referrers: Referrers;
  push: Push;
  metrics: MetricsSource;
  readiness: Readiness;
}

interface Operation<Place> {
  /** What the caller must be allowed to do at the place. */
  readonly action: Action;
  readonly handler: Handler<Place>;
}

/** Without HEAD, GET answers it too, unless it belongs to pushing. */
type Methods<T> = Readonly<Partial<Record<'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', T>>>;

/** A path that is served. What it needs says what its requests are routed to and authorized for. */
export type Endpoint = {
  readonly path: string;
  /** For the log and the metrics. */
  readonly kind: RequestKind;
} & (
  | {readonly needs: 'none'; readonly methods: Methods<{readonly handler: Handler<undefined>}>}
  /** One registry, or all of them. */
  | {readonly needs: 'registry'; readonly methods: Methods<Operation<Registry | undefined>>}
  | {readonly needs: 'repository'; readonly methods: Methods<Operation<Route>>}
);

/** What anybody may ask: it says nothing about any content. */
const openEndpoints = ({metrics, readiness}: Verbs): readonly Endpoint[] => [
  {path: '/v2{/}', kind: 'ping', needs: 'none', methods: {GET: {handler: ping}}},
  {path: '/metrics', kind: 'metrics', needs: 'none', methods: {GET: {handler: getMetrics(metrics)}}},
  {path: '/healthz', kind: 'probe', needs: 'none', methods: {GET: {handler: getHealth}}},
  {path: '/readyz', kind: 'probe', needs: 'none', methods: {GET: {handler: getReadiness(readiness)}}},
];

/** The one list of what is served. */
export const endpointsOf = (verbs: Verbs): readonly Endpoint[] => [
  ...openEndpoints(verbs),
  {
    path: '/v2/_catalog',
    kind: 'catalog',
    needs: 'registry',
    methods: {GET: {action: 'pull', handler: listCatalog(verbs.catalog)}},
  },
  {
    path: '/v2/*name/referrers/:digest',
    kind: 'referrers',
    needs: 'repository',
    methods: {GET: {action: 'pull', handler: listReferrers(verbs.referrers)}},
  },
  {
    path: '/v2/*name/tags/list',
    kind: 'tags',
    needs: 'repository',
    methods: {GET: {action: 'pull', handler: listTags(verbs.tagLists)}},
  },
  {
    path: '/v2/*name/manifests/:reference',
    kind: 'manifest',
    needs: 'repository',
    methods: {
      GET: {action: 'pull', handler: getManifest(verbs.manifests)},
      HEAD: {action: 'pull', handler: headManifest(verbs.manifests)},
      PUT: {action: 'push', handler: putManifest(verbs.push)},
      DELETE: {action: 'delete', handler: deleteManifest(verbs.push)},
    },
  },
  {
    path: '/v2/*name/blobs/uploads{/}',
    kind: 'upload',
    needs: 'repository',
    methods: {POST: {action: 'push', handler: beginUpload(verbs.push)}},
  },
  {
    path: '/v2/*name/blobs/uploads/:session',
    kind: 'upload',
    needs: 'repository',
    methods: {
      GET: {action: 'push', handler: getUpload(verbs.push)},
      PATCH: {action: 'push', handler: appendUpload(verbs.push)},
      PUT: {action: 'push', handler: finishUpload(verbs.push)},
      DELETE: {action: 'push', handler: cancelUpload(verbs.push)},
    },
  },
  {
    path: '/v2/*name/blobs/:digest',
    kind: 'blob',
    needs: 'repository',
    methods: {
      GET: {action: 'pull', handler: getBlob(verbs.blobs)},
      HEAD: {action: 'pull', handler: headBlob(verbs.blobs)},
      DELETE: {action: 'delete', handler: deleteBlob(verbs.push)},
    },
  },
];

/** What Koa carries from the application to the router, and back. */
export interface RequestState extends DefaultState {
  exchange: Exchange;
  caller: Caller;
  /** The configuration at the time of the request. */
  registries: Registries;
  answer?: Answer;
}

type Ctx = RouterContext<RequestState>;

/** @param access decides who may do what at the place that a request names */
export function createRouter(
  endpoints: readonly Endpoint[],
  access: Pick<Access, 'registry' | 'repository'>,
): Router<RequestState> {
  const router = new Router<RequestState>({strict: true, sensitive: true});
  for (const endpoint of endpoints) {
    router.all(endpoint.path, async (ctx) => {
      const {caller, exchange} = ctx.state;
      ctx.state.answer = await answerAt(endpoint, requestOf(ctx), caller, exchange, access);
    });
  }
  router.all('/{*path}', refusePath);
  return router;
}

const requestOf = ({method, path, query, params, req, state}: Ctx): Request => ({
  method,
  path,
  query,
  headers: req.headers,
  params,
  body: state.exchange.body,
  entrance: state.exchange.entrance,
  origin: state.exchange.origin,
  registries: state.registries,
  closed: () => state.exchange.closed(),
});

/**
 * The one door: routes a parsed request, authorizes it and gives it to its handler.
 * @param exchange learns where the request was routed, for the log and for the answer to an error
 * @throws OciError when too many requests run already, for an unsupported method, for a place that does not exist, and for a caller that is denied
 */
export async function answerAt(
  endpoint: Endpoint,
  request: Request,
  caller: Caller,
  exchange: Pick<Exchange, 'admit' | 'kind' | 'registry' | 'namespace'>,
  access: Pick<Access, 'registry' | 'repository'>,
): Promise<Answer> {
  exchange.kind = endpoint.kind;
  exchange.admit(caller);
  switch (endpoint.needs) {
    case 'none': {
      const {handler} = operationFor(endpoint.methods, request, () => false);
      return handler(request, undefined, caller);
    }
    case 'registry': {
      const {action, handler} = operationFor(endpoint.methods, request, () => false);
      const registry = registryAsked(request, exchange);
      admit(access.registry(registry, caller, action));
      return handler(request, registry, caller);
    }
    case 'repository': {
      const {methods} = endpoint;
      const {action, handler} = operationFor(methods, request, () => takesPushes(request, exchange));
      const route = routed(request, exchange);
      if (action !== 'pull' && route.registry.push.mode === 'deny')
        throw pushRefused(route, readsOf(methods));
      admit(access.repository(route, caller, action, tagIn(request)));
      return handler(request, route, caller);
    }
  }
}

/** Whether an unknown repository has the content is up to the verb. @throws OciError where it is denied */
function admit(decision: Decision): void {
  if (decision.verdict === 'denied') throw denial(decision);
}

/** The tag in the path, as its client wrote it. */
function tagIn({params: {reference}}: Request): string | undefined {
  return reference === undefined || isDigest(reference) ? undefined : reference;
}

type Operations = Readonly<Record<string, {readonly action?: Action} | undefined>>;

/**
 * What a method does.
 * @param takesPushes asked only for what a refusal names
 * @throws OciError 405 with the methods that are served (RFC 9110, section 15.5.6)
 */
function operationFor<T>(
  methods: Methods<T & {readonly action?: Action}>,
  {method}: Request,
  takesPushes: () => boolean,
): T {
  const served: Readonly<Record<string, T | undefined>> = methods;
  const own = served[method];
  if (own) return own;
  const reads = readsOf(methods);
  if (methods.GET && reads.includes(method)) return methods.GET;
  const writes = Object.keys(methods).filter((name) => !reads.includes(name));
  throw methodRefused(method, takesPushes() ? [...reads, ...writes] : reads);
}

/** The methods that are served whether or not the registry takes pushes. */
const readsOf = ({GET: get}: Operations): readonly string[] =>
  get && get.action !== 'push' ? ['GET', 'HEAD'] : [];

type Routed = Pick<Exchange, 'registry' | 'namespace'>;

/** The repository that a request names. */
function routed(request: Request, exchange: Routed): Route {
  const ns = singleParameter(request, 'ns');
  const host = headerOf(request, 'host');
  const route = routeOf(request.registries, {name: request.params['name'] ?? '', ns, host});
  exchange.namespace = ns;
  exchange.registry = route.registry.name;
  return route;
}

/** For a request that names no repository: the registry that `ns` names, else the one that its host means. */
function registryAsked(request: Request, exchange: Routed): Registry | undefined {
  const ns = singleParameter(request, 'ns');
  const registry = registryOf(request.registries, {ns, host: headerOf(request, 'host')});
  exchange.namespace = ns;
  exchange.registry = registry?.name;
  return registry;
}

/** Whether the repository's registry takes pushes; false where the request leads to none. */
function takesPushes(request: Request, exchange: Routed): boolean {
  try {
    return routed(request, exchange).registry.push.mode !== 'deny';
  } catch (error) {
    if (error instanceof OciError) return false;
    throw error;
  }
}

const pushRefused = ({registry: {name, upstream}}: Route, allow: readonly string[]): OciError =>
  new OciError('UNSUPPORTED', {
    message: `registry ${name} is a mirror and takes no pushes: registries.${name}.push is "deny"; push to ${upstream.host} itself, or set it to "through", which writes to ${upstream.host}, or to "local", which keeps what is pushed here`,
    headers: {Allow: allow.join(', ')},
  });

function methodRefused(method: string, allow: readonly string[]): OciError {
  const supported = allow.join(', ');
  return new OciError('UNSUPPORTED', {
    message: `${method} is not supported here${supported === '' ? '' : `; supported are ${supported}`}`,
    headers: {Allow: supported},
  });
}

function refusePath(ctx: Ctx): never {
  throw new OciError('UNSUPPORTED', {
    status: 404,
    message: `${ctx.path.slice(0, 120)} is not an endpoint; those of the OCI distribution specification begin with /v2/`,
  });
}
