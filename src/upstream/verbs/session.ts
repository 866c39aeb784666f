import type {Digest} from '../../oci/digest.ts';
import {UpstreamFailure} from '../port.ts';
import {header, type Reply} from '../transport/request.ts';

const RANGE = /^\s*(?:bytes[ =])?\d{1,15}-(\d{1,15})\s*$/i;

/**
 * The bytes that an upload has, as `Range` tells by its last one (distribution-spec, "Pushing a blob in chunks"). `0-0`
 * is what an empty upload says, and one with a single byte.
 * @param counted the bytes that it should have: of a single one `0-0` is believed to be said.
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
 * Where a session wants its bytes, by `Location`.
 * @throws UpstreamFailure `protocol` when that is no URL, or less secure than where the answer came from.
 */
export function locationOf({headers, url}: Reply): URL {
  const field = header(headers, 'location');
  const session = field ? URL.parse(field, url.href) : undefined;
  if (!session) {
    throw new UpstreamFailure('protocol', url.host, 'has an upload without a Location that is a URL');
  }
  if (session.protocol !== url.protocol && session.protocol !== 'https:') {
    throw new UpstreamFailure(
      'protocol',
      url.host,
      `wants the upload at ${session.origin}, which is not secure`,
    );
  }
  return session;
}

/** The URL that closes a session; its own query is kept (distribution-spec, "POST then PUT"). */
export function closing(session: URL, digest: Digest): URL {
  const url = new URL(session);
  // Appended as text: what stands there is the registry's, and is not to be spelled in another way.
  url.search += `${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
  return url;
}
