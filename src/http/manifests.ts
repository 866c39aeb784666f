import {parseReference} from '../oci/name.ts';
import type {ManifestFound, Manifests} from '../registry/manifests.ts';
import {explain} from './cache-headers.ts';
import {etagOf, noneMatch} from './conditional.ts';
import {type Ctx, noCache, routed} from './routing.ts';

/** dist-spec, end-3: the stored bytes, whatever the client accepts. */
export const getManifest = (manifests: Manifests) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const reference = parseReference(ctx.params['reference'] ?? '');
  const found = await manifests.get(route, reference, ctx.state.caller, {noCache: noCache(ctx)});
  describe(ctx, found);
  if (!unchanged(ctx, found)) ctx.body = found.bytes;
};

/** dist-spec, Checking if Content Exists: digest and length are a MUST. */
export const headManifest = (manifests: Manifests) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const reference = parseReference(ctx.params['reference'] ?? '');
  const found = await manifests.head(route, reference, ctx.state.caller, {noCache: noCache(ctx)});
  describe(ctx, found);
  if (unchanged(ctx, found)) return;
  ctx.status = 200;
  ctx.set('Content-Length', String(found.size));
};

function describe(ctx: Ctx, {digest, mediaType, report}: ManifestFound): void {
  ctx.set('Content-Type', mediaType);
  ctx.set('Docker-Content-Digest', digest);
  ctx.set('ETag', etagOf(digest));
  explain(ctx, report);
}

function unchanged(ctx: Ctx, {digest}: ManifestFound): boolean {
  if (!noneMatch(ctx.get('If-None-Match') || undefined, digest)) return false;
  ctx.status = 304;
  return true;
}
