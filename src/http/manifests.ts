import {OciError} from '../oci/errors.ts';
import {bareMediaType} from '../oci/media-type.ts';
import {parseTag, type Tag} from '../oci/name.ts';
import type {ManifestFound, Manifests} from '../registry/manifests/manifests.ts';
import type {Route} from '../registry/namespace.ts';
import type {Push} from '../registry/push/push.ts';
import type {Registry} from '../registry/registries.ts';
import {type Answer, contentHeaders, type Handler, locationOf, noneMatch, warning} from './answer.ts';
import {readWhole} from './body.ts';
import {headerOf, noCache, type Request, referenceInPath} from './request.ts';

/** Further tags that one request may set. */
const MAX_TAGS = 100;

/** dist-spec, end-3: the stored bytes, whatever the client accepts. */
export const getManifest =
  (manifests: Manifests): Handler<Route> =>
  async (request, route, caller) => {
    const options = {noCache: noCache(request)};
    const found = await manifests.get(route, referenceInPath(request), caller, options);
    return answerOf(request, found, {body: found.bytes});
  };

/** dist-spec, Checking if Content Exists: digest and length are a MUST. */
export const headManifest =
  (manifests: Manifests): Handler<Route> =>
  async (request, route, caller) => {
    const options = {noCache: noCache(request)};
    const found = await manifests.head(route, referenceInPath(request), caller, options);
    return answerOf(request, found, {headers: {'Content-Length': String(found.size)}});
  };

/** dist-spec, end-7. */
export const putManifest =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    const reference = referenceInPath(request);
    const tags = tagsAsked(request);
    const mediaType = bareMediaType(headerOf(request, 'content-type'));
    const bytes = await readManifest(request, route.registry);
    const receipt = await push.putManifest(route, reference, {bytes, mediaType, tags}, caller);
    return {
      status: 201,
      headers: {
        Location: locationOf(request, route, `manifests/${receipt.digest}`),
        'Docker-Content-Digest': receipt.digest,
        'OCI-Subject': receipt.subject,
        'OCI-Tag': receipt.tags.length > 0 ? receipt.tags : undefined,
        Warning: receipt.warning === undefined ? undefined : warning(receipt.warning),
      },
    };
  };

/** dist-spec, end-9. */
export const deleteManifest =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    await push.deleteManifest(route, referenceInPath(request), caller);
    return {status: 202, headers: {}};
  };

/** 304 where the client has the manifest already. */
function answerOf(
  request: Request,
  {digest, mediaType, report, repeat}: ManifestFound,
  content: Partial<Pick<Answer, 'body' | 'headers'>>,
): Answer {
  const headers = contentHeaders(digest, report);
  if (noneMatch(headerOf(request, 'if-none-match'), digest)) return {status: 304, headers, report, repeat};
  return {
    status: 200,
    headers: {'Content-Type': mediaType, ...headers, ...content.headers},
    body: content.body,
    report,
    repeat,
  };
}

/** dist-spec, Pushing Manifests: `?tag=`, at least 10 of them, 414 where there are too many. */
function tagsAsked({query}: Request): Tag[] {
  const tags = [...new Set([query['tag'] ?? []].flat())];
  if (tags.length > MAX_TAGS) {
    throw new OciError('MANIFEST_INVALID', {
      status: 414,
      message: `the request names ${tags.length} tags; one request may set at most ${MAX_TAGS}: put the manifest again with the others`,
    });
  }
  return tags.map(parseTag);
}

const readManifest = ({body}: Request, {name, maxManifest}: Registry): Promise<Buffer> =>
  readWhole(body, {
    maxBytes: maxManifest,
    code: 'MANIFEST_INVALID',
    tooLarge: () =>
      new OciError('MANIFEST_INVALID', {
        status: 413,
        message: `the manifest is larger than the ${maxManifest} bytes that registries.${name}.maxManifest allows`,
        limit: 'registries.NAME.maxManifest',
      }),
  });
