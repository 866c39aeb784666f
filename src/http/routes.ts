import Router, {type RouterContext} from '@koa/router';
import type {DefaultState} from 'koa';
import type {Caller} from '../caller.ts';
import {OciError} from '../oci/errors.ts';
import type {Blobs} from '../registry/blobs/blobs.ts';
import type {Catalog} from '../registry/catalog.ts';
import type {Manifests} from '../registry/manifests/manifests.ts';
import type {Push} from '../registry/push/push.ts';
import type {Readiness} from '../registry/readiness.ts';
import type {Referrers} from '../registry/referrers/referrers.ts';
import type {Registries} from '../registry/registries.ts';
import type {TagLists} from '../registry/tags/tag-lists.ts';
import type {Answer, Handler} from './answer.ts';
import {deleteBlob, getBlob, headBlob} from './blobs.ts';
import {listCatalog} from './catalog.ts';
import {TOKEN_PATH} from './challenge.ts';
import {answerAt, type DoorParts, type Endpoint} from './door.ts';
import {getHealth, getMetrics, getReadiness, type MetricsSource, ping} from './health.ts';
import {deleteManifest, getManifest, headManifest, putManifest} from './manifests.ts';
import {listReferrers} from './referrers.ts';
import type {Request} from './request.ts';
import type {Exchange} from './send.ts';
import {listTags} from './tags.ts';
import {getToken, type Login, postToken} from './token.ts';
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
  login: Login;
}

/** What says nothing about any content: there is nothing to authorize. */
const openEndpoints = ({metrics, readiness, login}: Verbs): readonly Endpoint[] => [
  {path: '/v2{/}', kind: 'ping', needs: 'login', methods: {GET: {handler: ping}}},
  {
    path: '/metrics',
    kind: 'metrics',
    at: 'admin',
    needs: 'operator',
    methods: {GET: {handler: getMetrics(metrics)}},
  },
  {
    path: TOKEN_PATH,
    kind: 'token',
    needs: 'none',
    methods: {GET: {handler: getToken(login)}, POST: {handler: postToken(login)}},
  },
  probe('/healthz', getHealth),
  probe('/readyz', getReadiness(readiness)),
];

const probe = (path: string, handler: Handler<undefined>): Endpoint => ({
  path,
  kind: 'probe',
  at: 'everywhere',
  needs: 'none',
  methods: {GET: {handler}},
});

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
      // The verb knows whether the manifest needs more than that.
      PUT: {action: 'attach', handler: putManifest(verbs.push)},
      DELETE: {action: 'delete', handler: deleteManifest(verbs.push)},
    },
  },
  {
    path: '/v2/*name/blobs/uploads{/}',
    kind: 'upload',
    needs: 'repository',
    methods: {POST: {action: 'attach', handler: beginUpload(verbs.push)}},
  },
  {
    path: '/v2/*name/blobs/uploads/:session',
    kind: 'upload',
    needs: 'repository',
    methods: {
      GET: {action: 'attach', handler: getUpload(verbs.push)},
      PATCH: {action: 'attach', handler: appendUpload(verbs.push)},
      PUT: {action: 'attach', handler: finishUpload(verbs.push)},
      DELETE: {action: 'attach', handler: cancelUpload(verbs.push)},
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

export function createRouter(
  endpoints: readonly Endpoint[],
  door: DoorParts,
  hasAdminListener: boolean,
): Router<RequestState> {
  const router = new Router<RequestState>({strict: true, sensitive: true});
  for (const endpoint of endpoints) {
    router.all(endpoint.path, async (ctx) => {
      const {caller, exchange} = ctx.state;
      if (!isServed(endpoint, exchange.entrance.serves, hasAdminListener)) return refusePath(ctx);
      ctx.state.answer = await answerAt(endpoint, requestOf(ctx), caller, exchange, door);
    });
  }
  router.all('/{*path}', refusePath);
  return router;
}

const isServed = ({at}: Endpoint, serves: 'main' | 'admin', hasAdminListener: boolean): boolean => {
  if (at === undefined) return serves === 'main';
  return at === 'everywhere' || serves === 'admin' || !hasAdminListener;
};

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

const SERVED = {
  main: '; those of the OCI distribution specification begin with /v2/',
  admin: ' of this listener, which serves no registry (listen.serve: admin)',
};

function refusePath(ctx: Ctx): never {
  throw new OciError('UNSUPPORTED', {
    status: 404,
    message: `${ctx.path.slice(0, 120)} is not an endpoint${SERVED[ctx.state.exchange.entrance.serves]}`,
  });
}
