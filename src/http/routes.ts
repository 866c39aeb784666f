import Router from '@koa/router';
import type {Clock} from '../clock.ts';
import type {RequestKind} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import type {Blobs} from '../registry/blobs/blobs.ts';
import type {Catalog} from '../registry/catalog.ts';
import type {Manifests} from '../registry/manifests/manifests.ts';
import type {Route} from '../registry/namespace.ts';
import type {Pushes} from '../registry/push/push.ts';
import type {Readiness} from '../registry/readiness.ts';
import type {Referrers} from '../registry/referrers/referrers.ts';
import type {TagLists} from '../registry/tags/tag-lists.ts';
import {deleteBlob, getBlob, headBlob} from './blobs.ts';
import {getHealth, getReadiness} from './health.ts';
import {deleteManifest, getManifest, headManifest, putManifest} from './manifests.ts';
import {listReferrers} from './referrers.ts';
import {type Ctx, routed} from './routing.ts';
import type {RequestState} from './state.ts';
import {listCatalog, listTags} from './tags.ts';
import {
  appendUpload,
  beginUpload,
  cancelUpload,
  finishUpload,
  getUpload,
  type PushHandler,
} from './uploads.ts';

export interface Verbs {
  manifests: Manifests;
  blobs: Blobs;
  tagLists: TagLists;
  catalog: Catalog;
  referrers: Referrers;
  pushes: Pushes;
  metrics: Metrics;
  readiness: Readiness;
}

/** Figures for a monitoring system. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

type Handler = (ctx: Ctx) => void | Promise<void>;

interface Endpoint {
  path: string;
  /** For the log and the metrics. */
  kind: RequestKind;
  /** Without HEAD, GET answers it. */
  methods: Partial<Record<'GET' | 'HEAD', Handler>>;
  /** Of the specification's push side: for registries that take pushes. */
  push?: ReadonlyMap<string, PushHandler>;
}

/** The one list of what is served. */
const endpoints = (
  {manifests, blobs, tagLists, catalog, referrers, metrics, readiness}: Verbs,
  clock: Clock,
): Endpoint[] => {
  const begin = new Map([['POST', beginUpload(clock)]]);
  return [
    {path: '/v2{/}', kind: 'ping', methods: {GET: ping}},
    {path: '/v2/_catalog', kind: 'catalog', methods: {GET: listCatalog(catalog)}},
    {path: '/metrics', kind: 'metrics', methods: {GET: getMetrics(metrics)}},
    {path: '/healthz', kind: 'probe', methods: {GET: getHealth}},
    {path: '/readyz', kind: 'probe', methods: {GET: getReadiness(readiness)}},
    {path: '/v2/*name/referrers/:digest', kind: 'referrers', methods: {GET: listReferrers(referrers)}},
    {path: '/v2/*name/tags/list', kind: 'tags', methods: {GET: listTags(tagLists)}},
    {
      path: '/v2/*name/manifests/:reference',
      kind: 'manifest',
      methods: {GET: getManifest(manifests), HEAD: headManifest(manifests)},
      push: new Map([
        ['PUT', putManifest(clock)],
        ['DELETE', deleteManifest],
      ]),
    },
    {path: '/v2/*name/blobs/uploads{/}', kind: 'upload', methods: {}, push: begin},
    {
      path: '/v2/*name/blobs/uploads/:session',
      kind: 'upload',
      methods: {},
      push: new Map([
        ['GET', getUpload],
        ['PATCH', appendUpload(clock)],
        ['PUT', finishUpload(clock)],
        ['DELETE', cancelUpload],
      ]),
    },
    {
      path: '/v2/*name/blobs/:digest',
      kind: 'blob',
      methods: {GET: getBlob(blobs), HEAD: headBlob(blobs)},
      push: new Map([['DELETE', deleteBlob]]),
    },
  ];
};

const NO_PUSH: ReadonlyMap<string, PushHandler> = new Map();

export function createRouter(verbs: Verbs, clock: Clock): Router<RequestState> {
  const router = new Router<RequestState>({strict: true, sensitive: true});
  for (const {path, kind, methods, push = NO_PUSH} of endpoints(verbs, clock)) {
    router.all(path, (ctx, next) => {
      ctx.state.kind = kind;
      return next();
    });
    if (methods.HEAD) router.head(path, methods.HEAD);
    if (methods.GET) router.get(path, methods.GET);
    const reads = methods.GET ? ['GET', 'HEAD'] : [];
    router.all(path, (ctx) => {
      const handler = push.get(ctx.method);
      if (!handler)
        return refuseMethod(ctx, takesPushes(ctx, verbs.pushes) ? [...reads, ...push.keys()] : reads);
      const route = routed(ctx);
      const way = verbs.pushes.of(route.registry);
      return way ? handler(ctx, route, way) : refusePush(route, reads);
    });
  }
  router.all('/{*path}', refusePath);
  return router;
}

/** A name that leads nowhere is no reason to say something else than that the method is wrong. */
function takesPushes(ctx: Ctx, pushes: Pushes): boolean {
  try {
    return pushes.of(routed(ctx).registry) !== undefined;
  } catch (error) {
    if (error instanceof OciError) return false;
    throw error;
  }
}

/** dist-spec, end-1. */
function ping(ctx: Ctx): void {
  ctx.set('Docker-Distribution-API-Version', 'registry/2.0');
  ctx.set('Content-Type', 'application/json');
  ctx.body = Buffer.from('{}');
}

const getMetrics = (metrics: Metrics) => async (ctx: Ctx) => {
  ctx.set('Content-Type', metrics.contentType);
  ctx.body = Buffer.from(await metrics.text());
};

function refusePush({registry: {name, upstream}}: Route, allow: readonly string[]): never {
  throw new OciError('UNSUPPORTED', {
    message: `registry ${name} is a mirror and takes no pushes: registries.${name}.push is "deny"; push to ${upstream.host} itself, or set it to "through", which writes to ${upstream.host}, or to "local", which keeps what is pushed here`,
    headers: {Allow: allow.join(', ')},
  });
}

function refuseMethod(ctx: Ctx, allow: readonly string[]): never {
  const supported = allow.join(', ');
  throw new OciError('UNSUPPORTED', {
    message: `${ctx.method} is not supported here${supported === '' ? '' : `; supported are ${supported}`}`,
    headers: {Allow: supported},
  });
}

function refusePath(ctx: Ctx): never {
  throw new OciError('UNSUPPORTED', {
    status: 404,
    message: `${ctx.path.slice(0, 120)} is no endpoint of the OCI distribution specification that is served here; they all begin with /v2/`,
  });
}
