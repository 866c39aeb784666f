import Router from '@koa/router';
import {OciError} from '../oci/errors.ts';
import type {Blobs} from '../registry/blobs.ts';
import type {Catalog} from '../registry/catalog.ts';
import type {Manifests} from '../registry/manifests.ts';
import type {Referrers} from '../registry/referrers/referrers.ts';
import type {TagLists} from '../registry/tag-lists.ts';
import {getBlob, headBlob} from './blobs.ts';
import {listCatalog, listTags} from './listings.ts';
import {getManifest, headManifest} from './manifests.ts';
import {listReferrers} from './referrers.ts';
import {type Ctx, routed} from './routing.ts';
import type {RequestState} from './state.ts';

export interface Verbs {
  manifests: Manifests;
  blobs: Blobs;
  tagLists: TagLists;
  catalog: Catalog;
  referrers: Referrers;
  metrics: Metrics;
}

/** Figures for a monitoring system. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

type Handler = (ctx: Ctx) => void | Promise<void>;

interface Endpoint {
  path: string;
  /** Without HEAD, GET answers it. */
  methods: Partial<Record<'GET' | 'HEAD', Handler>>;
  /** Methods of the specification's push side. */
  push?: readonly string[];
}

/** The one list of what is served. */
const endpoints = ({manifests, blobs, tagLists, catalog, referrers, metrics}: Verbs): Endpoint[] => [
  {path: '/v2{/}', methods: {GET: ping}},
  {path: '/v2/_catalog', methods: {GET: listCatalog(catalog)}},
  {path: '/metrics', methods: {GET: getMetrics(metrics)}},
  {path: '/v2/*name/referrers/:digest', methods: {GET: listReferrers(referrers)}},
  {path: '/v2/*name/tags/list', methods: {GET: listTags(tagLists)}},
  {
    path: '/v2/*name/manifests/:reference',
    methods: {GET: getManifest(manifests), HEAD: headManifest(manifests)},
    push: ['PUT', 'DELETE'],
  },
  {path: '/v2/*name/blobs/uploads{/}', methods: {}, push: ['POST']},
  {path: '/v2/*name/blobs/uploads/:session', methods: {}, push: ['GET', 'PATCH', 'PUT', 'DELETE']},
  {path: '/v2/*name/blobs/:digest', methods: {GET: getBlob(blobs), HEAD: headBlob(blobs)}, push: ['DELETE']},
];

export function createRouter(verbs: Verbs): Router<RequestState> {
  const router = new Router<RequestState>({strict: true, sensitive: true});
  for (const {path, methods, push = []} of endpoints(verbs)) {
    if (methods.HEAD) router.head(path, methods.HEAD);
    if (methods.GET) router.get(path, methods.GET);
    const allow = methods.GET ? 'GET, HEAD' : '';
    router.all(path, (ctx) =>
      push.includes(ctx.method) ? refusePush(ctx, allow) : refuseMethod(ctx, allow),
    );
  }
  router.all('/{*path}', refusePath);
  return router;
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

function refusePush(ctx: Ctx, allow: string): never {
  const {registry} = routed(ctx);
  throw new OciError('UNSUPPORTED', {
    message: `registry ${registry.name} is a mirror and takes no pushes: registries.${registry.name}.push is "deny"; push to ${registry.upstream.host} itself`,
    headers: {Allow: allow},
  });
}

function refuseMethod(ctx: Ctx, allow: string): never {
  throw new OciError('UNSUPPORTED', {
    message: `${ctx.method} is not supported here${allow === '' ? '' : `; supported are ${allow}`}`,
    headers: {Allow: allow},
  });
}

function refusePath(ctx: Ctx): never {
  throw new OciError('UNSUPPORTED', {
    status: 404,
    message: `${ctx.path.slice(0, 120)} is no endpoint of the OCI distribution specification that is served here; they all begin with /v2/`,
  });
}
