import {algorithmOf, type Digest, digestOf, isDigest} from '../../oci/digest.ts';
import {isManifestShaped} from '../../oci/manifest.ts';
import {bareMediaType, MANIFEST_ACCEPT} from '../../oci/media-type.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import type {Ask, Resource} from '../api-request.ts';
import {type ManifestBody, type ManifestHead, SpoiledAnswer} from '../port.ts';
import {collect, discard} from '../transport/body.ts';
import {contentLength, header, type Reply} from '../transport/reply.ts';

/** Bytes of the largest manifest that is read; the distribution-spec asks registries to accept at least 4 MiB. */
const MAX_BYTES = 16 * 1024 * 1024;
/** The upstream says that there is no such manifest, or that it is gone. */
const ABSENT: readonly number[] = [404, 410];
const ACCEPT = {accept: MANIFEST_ACCEPT};

/** The digest that a reply claims for its content, when it is a supported one. */
export const digestIn = ({headers}: Reply): Digest | undefined => {
  const claimed = header(headers, 'docker-content-digest') ?? '';
  return isDigest(claimed) ? claimed : undefined;
};

/**
 * Checks a manifest that was requested by digest: its bytes have it.
 * @throws SpoiledAnswer `protocol`
 */
function requireDigest({bytes}: ManifestBody, digest: Digest, host: string): void {
  const actual = digestOf(bytes, algorithmOf(digest));
  if (actual === digest) return;
  const reason = `answered with a manifest whose digest is ${actual}, not ${digest}`;
  throw new SpoiledAnswer('protocol', host, reason);
}

/**
 * Checks a manifest that was requested by tag. Nothing else distinguishes a manifest from an error, half a body or a page
 * with status 200, so the bytes must look like a manifest and have the digest that the reply names.
 * @throws SpoiledAnswer `protocol`
 */
function requireManifest({bytes, digest, mediaType}: ManifestBody, tag: Tag, host: string): void {
  if (!isManifestShaped(bytes)) {
    const what = `${bytes.length} bytes of type ${(mediaType ?? 'unknown').slice(0, 255)}`;
    const reason = `answered the tag ${tag} with ${what} that are not a manifest`;
    throw new SpoiledAnswer('protocol', host, reason);
  }
  const actual = digest && digestOf(bytes, algorithmOf(digest));
  if (actual === digest) return;
  const reason = `answered the tag ${tag} with a manifest whose digest is ${actual}, but named ${digest}`;
  throw new SpoiledAnswer('protocol', host, reason);
}

/**
 * @param reference the last part of the resource's URL.
 * @returns undefined when the upstream says that there is no such manifest.
 */
export async function getManifest(
  ask: Ask,
  resource: Resource,
  reference: Reference,
  cacheControl?: 'no-cache',
): Promise<ManifestBody | undefined> {
  const headers = cacheControl ? {...ACCEPT, 'cache-control': cacheControl} : ACCEPT;
  const request = {...resource, method: 'GET', headers, slot: 'manifests', expected: ABSENT} as const;
  return ask(request, (reply) => readManifest(reply, resource, reference));
}

async function readManifest(
  reply: Reply,
  {url: {host, origin}}: Resource,
  reference: Reference,
): Promise<ManifestBody | undefined> {
  if (ABSENT.includes(reply.status)) {
    discard(reply.body);
    return undefined;
  }
  const bytes = await collect(reply.body, host, MAX_BYTES, 'the manifest');
  const mediaType = bareMediaType(header(reply.headers, 'content-type'));
  // After a redirect the ETag is that of a storage server, which means nothing to the registry.
  const etag = reply.url.origin === origin ? strongEtag(reply) : undefined;
  const manifest = {bytes, digest: digestIn(reply), mediaType, ...(etag === undefined ? {} : {etag})};
  if (isDigestReference(reference)) requireDigest(manifest, reference, host);
  else requireManifest(manifest, reference, host);
  return manifest;
}

/** RFC 9110, section 13.1.1: `If-Match` compares strongly, so a weak ETag never matches. */
function strongEtag({headers}: Reply): string | undefined {
  const etag = header(headers, 'etag')?.trim() ?? '';
  return /^"[\x21\x23-\x7e]*"$/.test(etag) ? etag : undefined;
}

/**
 * Uses HEAD, or GET when the upstream does not support HEAD for manifests.
 * @param reference the last part of the resource's URL.
 */
export async function headManifest(
  ask: Ask,
  resource: Resource,
  reference: Reference,
): Promise<ManifestHead | undefined> {
  const expected = [...ABSENT, 405, 501];
  const reply = await ask({...resource, method: 'HEAD', headers: ACCEPT, slot: 'heads', expected});
  if (ABSENT.includes(reply.status)) return undefined;
  if (reply.status === 405 || reply.status === 501) {
    const manifest = await getManifest(ask, resource, reference);
    return manifest && {digest: manifest.digest, mediaType: manifest.mediaType, size: manifest.bytes.length};
  }
  return {
    digest: digestIn(reply),
    mediaType: bareMediaType(header(reply.headers, 'content-type')),
    size: contentLength(reply),
  };
}
