import type {Digest} from '../../oci/digest.ts';
import {UpstreamFailure} from '../port.ts';
import {header, type Reply} from '../transport/reply.ts';

const RANGE = /^\s*(?:bytes[ =])?\d{1,15}-(\d{1,15})\s*$/i;

/**
 * The number of bytes that an upload has, from `Range`, which names the last one (distribution-spec, "Pushing a blob in
 * chunks"). `0-0` is ambiguous: registries send it for an empty upload and for one with a single byte.
 * @param counted the bytes that were sent; with exactly one, `0-0` is read as one byte.
 */
export function bytesHeld({headers}: Reply, counted = 0): number | undefined {
  const last = RANGE.exec(header(headers, 'range') ?? '')?.[1];
  if (last === undefined) return undefined;
  return Number(last) === 0 && counted !== 1 ? 0 : Number(last) + 1;
}

/** `OCI-Chunk-Min-Length` in bytes. */
export function minChunkOf({headers}: Reply): number | undefined {
  const field = header(headers, 'oci-chunk-min-length')?.trim() ?? '';
  return /^\d{1,15}$/.test(field) ? Number(field) : undefined;
}

/**
 * Where the session's next request goes, from `Location`.
 * @throws UpstreamFailure `protocol` when it is not a valid URL, or less secure than the URL that answered.
 */
export function locationOf({headers, url}: Reply): URL {
  const field = header(headers, 'location');
  const session = field ? URL.parse(field, url.href) : undefined;
  if (!session) {
    const reason = 'answered an upload request with a Location that is missing or not a valid URL';
    throw new UpstreamFailure('protocol', url.host, reason);
  }
  if (session.protocol !== url.protocol && session.protocol !== 'https:') {
    const reason = `wants the upload at ${session.origin}, which is not secure`;
    throw new UpstreamFailure('protocol', url.host, reason);
  }
  return session;
}

/** The URL that closes a session. Keeps the session's own query (distribution-spec, "POST then PUT"). */
export function closing(session: URL, digest: Digest): URL {
  const url = new URL(session);
  // Appended as text: `searchParams` would re-encode the registry's own query.
  url.search += `${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
  return url;
}
