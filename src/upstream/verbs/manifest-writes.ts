import {blobOf} from '../../oci/blob.ts';
import {algorithmOf, type Digest, digestOf, isDigest} from '../../oci/digest.ts';
import {isTag, type Reference, type Tag} from '../../oci/name.ts';
import type {Exchange} from '../exchange.ts';
import {type ManifestTaken, UpstreamFailure} from '../port.ts';
import {header, type Reply} from '../transport/request.ts';
import type {Target} from '../transport/target.ts';
import {digestIn, getManifest} from './manifests.ts';
import {EMPTY, write} from './refusal.ts';

interface OutgoingManifest {
  mediaType: string;
  bytes: Buffer;
  /** Further tags for it. */
  tags?: readonly Tag[];
  /** The validator of what it takes the place of (RFC 9110, section 13.1.1). */
  ifMatch?: string | undefined;
}

function subjectIn({headers}: Reply): Digest | undefined {
  const subject = header(headers, 'oci-subject')?.trim() ?? '';
  return isDigest(subject) ? subject : undefined;
}

/** Of `OCI-Tag`, which may stand there once for each tag, or once with all of them. */
function tagsIn({headers}: Reply): Tag[] {
  const named = (header(headers, 'oci-tag') ?? '').split(',').map((tag) => tag.trim());
  return [...new Set(named.filter(isTag))];
}

/** distribution-spec, Pushing Manifests: 201. Only a registry names the digest that the bytes have. */
function isStored(reply: Reply, bytes: Buffer): boolean {
  const digest = digestIn(reply);
  return reply.status === 201 && digest !== undefined && digestOf(bytes, algorithmOf(digest)) === digest;
}

/** @throws UpstreamFailure `protocol` when the registry does not have these very bytes under the reference */
async function requireStored(
  ask: Exchange['ask'],
  target: Target,
  reference: Reference,
  bytes: Buffer,
  {status}: Reply,
): Promise<void> {
  const stored = await getManifest(ask, target, reference, 'no-cache');
  if (stored?.bytes.equals(bytes)) return;
  const found = stored === undefined ? 'does not have it' : 'has another manifest there';
  const reason = `answered ${status} when the manifest ${reference} was put, without its digest, and ${found}`;
  throw new UpstreamFailure('protocol', target.url.host, reason);
}

/**
 * Puts a manifest (distribution-spec, end-7). An answer that is not a 201 with the digest of the bytes proves nothing:
 * then the manifest is read back.
 * @param target its URL is that of the manifest.
 * @param reference what the target's URL ends with.
 * @throws UpstreamRefusal; UpstreamFailure, also when the registry does not have the manifest afterwards
 */
export async function putManifest(
  ask: Exchange['ask'],
  target: Target,
  reference: Reference,
  {mediaType, bytes, tags = [], ifMatch}: OutgoingManifest,
): Promise<ManifestTaken> {
  const url = new URL(target.url);
  for (const tag of tags) url.searchParams.append('tag', tag);
  const headers = {'content-type': mediaType, ...(ifMatch === undefined ? {} : {'if-match': ifMatch})};
  const question = {...target, url, method: 'PUT', headers, body: blobOf(bytes), slot: 'heads'} as const;
  const reply = await write(ask, question, 'the manifest');
  if (isStored(reply, bytes))
    return {digest: digestIn(reply), subject: subjectIn(reply), tags: tagsIn(reply)};
  await requireStored(ask, target, reference, bytes, reply);
  return {digest: undefined, subject: subjectIn(reply), tags: []};
}

/**
 * Deletes a tag, or a manifest (distribution-spec, end-9).
 * @throws UpstreamRefusal where there is none (404), and where it cannot be deleted (400, 405).
 */
export async function deleteManifest(ask: Exchange['ask'], target: Target): Promise<void> {
  const question = {...target, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'} as const;
  await write(ask, question, 'to delete the manifest');
}
