import type {Clock} from '../clock.ts';
import {OciError} from '../oci/errors.ts';
import {bareMediaType} from '../oci/media-type.ts';
import {parseReference, parseTag, type Tag} from '../oci/name.ts';
import type {ManifestFound, Manifests} from '../registry/manifests/manifests.ts';
import type {Registry} from '../registry/registries.ts';
import {explain, warning} from './answer.ts';
import {readWhole} from './body.ts';
import {etagOf, noneMatch} from './conditional.ts';
import {locationOf} from './location.ts';
import {type Ctx, noCache, routed} from './routing.ts';
import type {PushHandler} from './uploads.ts';

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

/** Further tags that one request may set. */
const MAX_TAGS = 100;

/** dist-spec, end-7. */
export const putManifest =
  (clock: Clock): PushHandler =>
  async (ctx, route, push) => {
    const reference = parseReference(ctx.params['reference'] ?? '');
    const tags = tagsAsked(ctx);
    const mediaType = bareMediaType(ctx.get('Content-Type') || undefined);
    const bytes = await readManifest(ctx, route.registry, clock);
    const receipt = await push.putManifest(route, reference, {bytes, mediaType, tags}, ctx.state.caller);
    ctx.body = null;
    ctx.status = 201;
    ctx.set('Location', locationOf(ctx, route, `manifests/${receipt.digest}`));
    ctx.set('Docker-Content-Digest', receipt.digest);
    if (receipt.subject !== undefined) ctx.set('OCI-Subject', receipt.subject);
    if (receipt.tags.length > 0) ctx.set('OCI-Tag', [...receipt.tags]);
    if (receipt.warning !== undefined) ctx.set('Warning', warning(receipt.warning));
  };

/** dist-spec, end-9. */
export const deleteManifest: PushHandler = async (ctx, route, push) => {
  await push.deleteManifest(route, parseReference(ctx.params['reference'] ?? ''), ctx.state.caller);
  ctx.body = null;
  ctx.status = 202;
};

/** dist-spec, Pushing Manifests: `?tag=`, at least 10 of them, 414 where there are too many. */
function tagsAsked(ctx: Ctx): Tag[] {
  const tags = [...new Set([ctx.query['tag'] ?? []].flat())];
  if (tags.length > MAX_TAGS) {
    throw new OciError('MANIFEST_INVALID', {
      status: 414,
      message: `the request names ${tags.length} tags; at most ${MAX_TAGS} are set at once: put the manifest once more with the others`,
    });
  }
  return tags.map(parseTag);
}

const readManifest = (ctx: Ctx, {name, maxManifest}: Registry, clock: Clock): Promise<Buffer> =>
  readWhole(ctx, clock, {
    most: maxManifest,
    code: 'MANIFEST_INVALID',
    tooLarge: () =>
      new OciError('MANIFEST_INVALID', {
        status: 413,
        message: `the manifest is larger than the ${maxManifest} bytes that registries.${name}.maxManifest allows`,
      }),
  });

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
