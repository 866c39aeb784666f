import {blobOf} from '../../oci/blob.ts';
import {algorithmOf, digestOf} from '../../oci/digest.ts';
import {isTag, type Reference, type Tag} from '../../oci/name.ts';
import type {Ask, Resource} from '../api-request.ts';
import {type ManifestTaken, type OutgoingManifest, UpstreamFailure} from '../port.ts';
import {header, type Reply} from '../transport/reply.ts';
import {digestIn, getManifest} from './manifests.ts';
import {EMPTY, write} from './refusal.ts';

/** The tags in `OCI-Tag`, which may be repeated for each tag or list all of them. */
function tagsIn({headers}: Reply): Tag[] {
  const named = (header(headers, 'oci-tag') ?? '').split(',').map((tag) => tag.trim());
  return [...new Set(named.filter(isTag))];
}

/** distribution-spec, Pushing Manifests: 201. Only a registry can name the digest of the bytes. */
function isStored(reply: Reply, bytes: Buffer): boolean {
  const digest = digestIn(reply);
  return reply.status === 201 && digest !== undefined && digestOf(bytes, algorithmOf(digest)) === digest;
}

/** @throws UpstreamFailure `protocol` when the registry does not have exactly these bytes under the reference. */
async function requireStored(
  ask: Ask,
  resource: Resource,
  reference: Reference,
  bytes: Buffer,
  {status}: Reply,
): Promise<void> {
  const stored = await getManifest(ask, resource, reference, 'no-cache');
  if (stored?.bytes.equals(bytes)) return;
  const found = stored === undefined ? 'does not have it' : 'has another manifest there';
  const reason = `answered ${status} to the upload of the manifest ${reference}, without its digest, and ${found}`;
  throw new UpstreamFailure('protocol', resource.url.host, reason);
}

/**
 * Uploads a manifest (distribution-spec, end-7). A reply that is not a 201 with the digest of the bytes proves nothing;
 * then the manifest is read back.
 * @param resource its URL is that of the manifest.
 * @param reference the last part of the resource's URL.
 * @throws UpstreamRefusal; UpstreamFailure, also when the registry does not have the manifest afterwards.
 */
export async function putManifest(
  ask: Ask,
  resource: Resource,
  reference: Reference,
  {mediaType, bytes, tags = [], ifMatch}: OutgoingManifest,
): Promise<ManifestTaken> {
  const url = new URL(resource.url);
  for (const tag of tags) url.searchParams.append('tag', tag);
  // RFC 9110, section 13.1.1.
  const headers = {'content-type': mediaType, ...(ifMatch === undefined ? {} : {'if-match': ifMatch})};
  const request = {...resource, url, method: 'PUT', headers, body: blobOf(bytes), slot: 'heads'} as const;
  const reply = await write(ask, request, 'the manifest');
  if (isStored(reply, bytes)) return {digest: digestIn(reply), tags: tagsIn(reply)};
  await requireStored(ask, resource, reference, bytes, reply);
  return {digest: undefined, tags: []};
}

/**
 * Deletes a tag or a manifest (distribution-spec, end-9).
 * @throws UpstreamRefusal when there is none (404), or it cannot be deleted (400, 405).
 */
export async function deleteManifest(ask: Ask, resource: Resource): Promise<void> {
  const request = {...resource, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'} as const;
  await write(ask, request, 'to delete the manifest');
}
