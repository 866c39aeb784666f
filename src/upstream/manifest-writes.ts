import {blobOf} from '../oci/blob.ts';
import {type Digest, isDigest} from '../oci/digest.ts';
import {isTag, type Tag} from '../oci/name.ts';
import type {Exchange} from './exchange.ts';
import {digestIn} from './manifests.ts';
import type {ManifestTaken} from './port.ts';
import {EMPTY, write} from './refusal.ts';
import {header, type Reply} from './request.ts';
import type {Target} from './target.ts';

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

/**
 * Puts a manifest (distribution-spec, end-7). What the registry says of it proves nothing.
 * @throws UpstreamRefusal, UpstreamFailure
 */
export async function putManifest(
  ask: Exchange['ask'],
  target: Target,
  {mediaType, bytes, tags = [], ifMatch}: OutgoingManifest,
): Promise<ManifestTaken> {
  const url = new URL(target.url);
  for (const tag of tags) url.searchParams.append('tag', tag);
  const headers = {'content-type': mediaType, ...(ifMatch === undefined ? {} : {'if-match': ifMatch})};
  const question = {...target, url, method: 'PUT', headers, body: blobOf(bytes), slot: 'heads'} as const;
  const reply = await write(ask, question, 'the manifest');
  return {digest: digestIn(reply), subject: subjectIn(reply), tags: tagsIn(reply)};
}

/**
 * Deletes a tag, or a manifest (distribution-spec, end-9).
 * @throws UpstreamRefusal where there is none (404), and where it cannot be deleted (400, 405).
 */
export async function deleteManifest(ask: Exchange['ask'], target: Target): Promise<void> {
  const question = {...target, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'} as const;
  await write(ask, question, 'to delete the manifest');
}
