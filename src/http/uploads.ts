import type {Clock} from '../clock.ts';
import {algorithmOf, type Digest, parseAlgorithm, parseDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {parseUploadId, type UploadId} from '../oci/upload.ts';
import {type Route, routeOf} from '../registry/namespace.ts';
import type {Chunk, Push, UploadOptions, UploadState} from '../registry/push/push.ts';
import {chunkOf} from './chunk.ts';
import {locationOf} from './location.ts';
import {singleParameter} from './request.ts';
import type {Ctx} from './routing.ts';

/** What a request to push does where its registry takes pushes. */
export type PushHandler = (ctx: Ctx, route: Route, push: Push) => Promise<void>;

/** dist-spec, end-4a, end-4b (the whole blob in one request), end-4c and end-11. */
export const beginUpload =
  (clock: Clock): PushHandler =>
  async (ctx, route, push) => {
    const digest = digestAsked(ctx, 'digest');
    const chunk = digest && chunkOf(ctx, clock);
    const mount = mountAsked(ctx, route);
    const algorithm = algorithmAsked(ctx) ?? (digest && algorithmOf(digest));
    const begun = await push.begin(route, {algorithm, mount}, ctx.state.caller);
    if (begun === 'mounted') return taken(ctx, route, mount?.digest);
    if (!chunk) return underWay(ctx, route, 202, begun);
    await finishAtOnce(ctx, route, push, begun.id, digest, chunk);
    taken(ctx, route, digest);
  };

/** The client never hears of this upload: it cannot go on with it, and nobody else can. */
async function finishAtOnce(
  {state: {caller}}: Ctx,
  route: Route,
  push: Push,
  id: UploadId,
  digest: Digest,
  chunk: Chunk,
): Promise<void> {
  try {
    await push.finish(route, id, digest, chunk, caller);
  } catch (error) {
    // It may have ended with what went wrong; else it expires.
    await push.cancel(route, id, caller).catch(() => {});
    throw error;
  }
}

/** dist-spec, end-13. */
export const getUpload: PushHandler = async (ctx, route, push) => {
  underWay(ctx, route, 204, await push.state(route, sessionOf(ctx), ctx.state.caller));
};

/** dist-spec, end-5. */
export const appendUpload =
  (clock: Clock): PushHandler =>
  async (ctx, route, push) => {
    const id = sessionOf(ctx);
    const chunk = chunkOf(ctx, clock);
    const state = await inOrder(ctx, route, id, push.append(route, id, chunk, ctx.state.caller));
    underWay(ctx, route, 202, state);
  };

/** dist-spec, end-6. */
export const finishUpload =
  (clock: Clock): PushHandler =>
  async (ctx, route, push) => {
    const id = sessionOf(ctx);
    const digest = digestAsked(ctx, 'digest');
    if (digest === undefined) throw digestMissing();
    const chunk = chunkOf(ctx, clock);
    await inOrder(ctx, route, id, push.finish(route, id, digest, chunk, ctx.state.caller));
    taken(ctx, route, digest);
  };

/** dist-spec, end-14. */
export const cancelUpload: PushHandler = async (ctx, route, push) => {
  await push.cancel(route, sessionOf(ctx), ctx.state.caller);
  ctx.status = 204;
};

const sessionOf = (ctx: Ctx): UploadId => parseUploadId(ctx.params['session'] ?? '');

function digestAsked(ctx: Ctx, parameter: 'digest' | 'mount'): Digest | undefined {
  const text = singleParameter(ctx.query[parameter], parameter);
  return text === undefined ? undefined : parseDigest(text);
}

function algorithmAsked(ctx: Ctx): UploadOptions['algorithm'] {
  const text = singleParameter(ctx.query['digest-algorithm'], 'digest-algorithm');
  return text === undefined ? undefined : parseAlgorithm(text);
}

/** dist-spec, Mounting a blob: where it cannot be mounted from the repository that was named, an upload begins. */
function mountAsked(ctx: Ctx, route: Route): UploadOptions['mount'] {
  const digest = digestAsked(ctx, 'mount');
  const name = singleParameter(ctx.query['from'], 'from');
  if (digest === undefined) return undefined;
  if (name === undefined) return {digest, from: undefined};
  const from = routeFrom(ctx, name);
  return from?.registry === route.registry ? {digest, from} : undefined;
}

/** A repository in the client's own naming; undefined for what names none. */
function routeFrom(ctx: Ctx, name: string): Route | undefined {
  const ns = singleParameter(ctx.query['ns'], 'ns');
  try {
    return routeOf(ctx.state.registries, {name, ns, host: ctx.get('Host') || undefined});
  } catch (error) {
    if (error instanceof OciError) return undefined;
    throw error;
  }
}

/** dist-spec, Pushing a blob in chunks: 416 for a chunk out of order, here with where to go on. */
async function inOrder<T>(ctx: Ctx, route: Route, id: UploadId, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof OciError) || error.status !== 416) throw error;
    const {code, message, detail, status} = error;
    const headers = {...error.headers, Location: locationOf(ctx, route, `blobs/uploads/${id}`)};
    throw new OciError(code, {message, ...(detail ? {detail} : {}), status, headers, cause: error});
  }
}

function underWay(ctx: Ctx, route: Route, status: number, {id, offset, minChunk}: UploadState): void {
  ctx.body = null;
  ctx.status = status;
  ctx.set('Location', locationOf(ctx, route, `blobs/uploads/${id}`));
  // Both ends are inclusive, so that nothing at all and one byte look the same.
  ctx.set('Range', `0-${Math.max(0, offset - 1)}`);
  ctx.set('Docker-Upload-UUID', id);
  if (minChunk !== undefined) ctx.set('OCI-Chunk-Min-Length', String(minChunk));
}

function taken(ctx: Ctx, route: Route, digest: Digest | undefined): void {
  ctx.body = null;
  ctx.status = 201;
  if (digest === undefined) return;
  ctx.set('Location', locationOf(ctx, route, `blobs/${digest}`));
  ctx.set('Docker-Content-Digest', digest);
}

const digestMissing = (): OciError =>
  new OciError('DIGEST_INVALID', {
    message: 'the digest of the whole blob is missing: close the upload with PUT <location>?digest=<digest>',
  });
