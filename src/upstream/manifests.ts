import {type Digest, isDigest} from '../oci/digest.ts';
import {bareMediaType, MANIFEST_ACCEPT} from '../oci/media-type.ts';
import {collect, discard} from './body.ts';
import type {Exchange} from './exchange.ts';
import type {ManifestBody, ManifestHead} from './port.ts';
import {contentLength, header, type Reply} from './request.ts';
import type {Target} from './target.ts';

/** Bytes of the largest manifest that is taken; the distribution-spec asks registries for at least 4 MiB. */
const MOST_BYTES = 16 * 1024 * 1024;
const ACCEPT = {accept: MANIFEST_ACCEPT};

/** The digest that an answer claims its content to have, when it is one we support. */
export const digestIn = ({headers}: Reply): Digest | undefined => {
  const claimed = header(headers, 'docker-content-digest') ?? '';
  return isDigest(claimed) ? claimed : undefined;
};

/** @returns undefined when the upstream says that there is no such manifest. */
export async function getManifest(
  ask: Exchange['ask'],
  target: Target,
  cacheControl?: 'no-cache',
): Promise<ManifestBody | undefined> {
  const headers = cacheControl ? {...ACCEPT, 'cache-control': cacheControl} : ACCEPT;
  const reply = await ask({...target, method: 'GET', headers, slot: 'bodies', answers: [404]});
  if (reply.status === 404) {
    discard(reply.body);
    return undefined;
  }
  const bytes = await collect(reply.body, target.url.host, MOST_BYTES, 'the manifest');
  const mediaType = bareMediaType(header(reply.headers, 'content-type'));
  // After a redirect it is a storage's, which the registry does not know.
  const etag = reply.url.origin === target.url.origin ? strongEtag(reply) : undefined;
  return {bytes, digest: digestIn(reply), mediaType, ...(etag === undefined ? {} : {etag})};
}

/** RFC 9110, section 13.1.1: `If-Match` compares strongly, so that a weak one never matches. */
function strongEtag({headers}: Reply): string | undefined {
  const etag = header(headers, 'etag')?.trim() ?? '';
  return /^"[\x21\x23-\x7e]*"$/.test(etag) ? etag : undefined;
}

/** Asks by HEAD; of an upstream that has no HEAD for manifests, by GET. */
export async function headManifest(ask: Exchange['ask'], target: Target): Promise<ManifestHead | undefined> {
  const reply = await ask({
    ...target,
    method: 'HEAD',
    headers: ACCEPT,
    slot: 'heads',
    answers: [404, 405, 501],
  });
  if (reply.status === 404) return undefined;
  if (reply.status === 405 || reply.status === 501) {
    const manifest = await getManifest(ask, target);
    return manifest && {digest: manifest.digest, mediaType: manifest.mediaType, size: manifest.bytes.length};
  }
  return {
    digest: digestIn(reply),
    mediaType: bareMediaType(header(reply.headers, 'content-type')),
    size: contentLength(reply),
  };
}
