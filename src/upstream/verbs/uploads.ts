import type {BlobSource} from '../../oci/blob.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Ask, Resource} from '../api-request.ts';
import {
  type BlobTaken,
  type NewUpload,
  type OutgoingChunk,
  UpstreamFailure,
  UpstreamRefusal,
  type UpstreamUpload,
} from '../port.ts';
import type {Reply} from '../transport/reply.ts';
import {headBlob} from './blobs.ts';
import {digestIn} from './manifests.ts';
import {EMPTY, write} from './refusal.ts';
import {bytesHeld, closing, locationOf, minChunkOf} from './session.ts';

const BYTES = {'content-type': 'application/octet-stream'};
/** Upload sessions that are opened for one blob while connections break. */
const MAX_SESSIONS = 3;

/** @param counted the bytes that it should have, used when the reply does not say. */
function uploadOf(reply: Reply, counted: number): UpstreamUpload {
  return {
    location: locationOf(reply).href,
    offset: bytesHeld(reply, counted) ?? counted,
    minChunk: minChunkOf(reply),
  };
}

function beginUrl({url}: Resource, {mount, algorithm}: NewUpload): URL {
  const begin = new URL(url);
  if (mount) begin.searchParams.set('mount', mount.digest);
  if (mount?.from) begin.searchParams.set('from', mount.from);
  if (algorithm) begin.searchParams.set('digest-algorithm', algorithm);
  return begin;
}

/**
 * Begins an upload (distribution-spec, end-4a and end-11).
 * @param resource its URL is where uploads begin.
 * @throws UpstreamRefusal, UpstreamFailure
 */
export async function beginUpload(
  ask: Ask,
  resource: Resource,
  wanted: NewUpload,
): Promise<UpstreamUpload | 'mounted'> {
  const {mount, ...rest} = wanted;
  const from = mount?.from;
  const request = {
    ...resource,
    url: beginUrl(resource, wanted),
    method: 'POST',
    headers: {},
    body: EMPTY,
    slot: 'heads',
    ...(from ? {permission: {from}} : {}),
  } as const;
  try {
    const reply = await write(ask, request, 'an upload');
    if (mount && reply.status === 201) return 'mounted';
    return uploadOf(reply, 0);
  } catch (error) {
    // We may write to this repository but not read from the other: begin without the mount.
    if (!from || !(error instanceof UpstreamFailure) || error.kind !== 'denied') throw error;
    return beginUpload(ask, resource, rest);
  }
}

/** Passes the bytes on and calls `onChunk` for each chunk. Ending it early ends its source, even while a chunk is awaited. */
const observed = (
  bytes: AsyncIterable<Uint8Array>,
  onChunk: (chunk: Uint8Array) => void,
): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]() {
    const source = bytes[Symbol.asyncIterator]();
    return {
      async next() {
        const next = await source.next();
        if (!next.done) onChunk(next.value);
        return next;
      },
      async return() {
        await source.return?.();
        return {done: true, value: undefined};
      },
    };
  },
});

/** A request to a session that may have ended meanwhile. @returns undefined when the upstream does not know it. */
async function unlessEnded(reply: Promise<Reply>): Promise<Reply | undefined> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof UpstreamRefusal && error.status === 404) return undefined;
    throw error;
  }
}

/** Sends bytes to a session, once. An empty chunk can be sent again, so it goes as an ordinary body. */
async function sendChunk(
  ask: Ask,
  resource: Resource,
  {method, chunk, what}: {method: 'PATCH' | 'PUT'; chunk: OutgoingChunk; what: string},
): Promise<{reply: Reply; sent: number}> {
  const {length, range} = chunk;
  const contentRange: Record<string, string> = range ? {'content-range': `${range.start}-${range.end}`} : {};
  const request = {
    ...resource,
    method,
    headers: {...BYTES, ...contentRange},
    slot: 'uploads',
    attempts: 'one',
  } as const;
  if (length === 0) return {reply: await write(ask, {...request, body: EMPTY}, what), sent: 0};
  let sent = 0;
  const count = (bytes: Uint8Array) => {
    sent += bytes.length;
  };
  const stream = {length, bytes: observed(chunk.bytes, count)};
  const reply = await write(ask, {...request, stream}, what);
  return {reply, sent};
}

/**
 * Sends further bytes (distribution-spec, end-5).
 * @param resource its URL is the session's location.
 * @param known the bytes that it has before them.
 * @returns the session after them. When the upstream does not say its offset, it is what was known and sent.
 * @throws UpstreamRefusal, with 416 and the upstream's own offset for a chunk out of order; UpstreamFailure; and what
 * reading the bytes throws.
 */
export async function appendUpload(
  ask: Ask,
  resource: Resource,
  known: number,
  chunk: OutgoingChunk,
): Promise<UpstreamUpload> {
  const what = 'bytes of an upload';
  const {reply, sent} = await sendChunk(ask, resource, {method: 'PATCH', chunk, what});
  return uploadOf(reply, known + sent);
}

/**
 * Asks for the state of an upload (distribution-spec, end-13).
 * @param resource its URL is the session's location.
 * @param known the bytes that it should have, used when the upstream does not say.
 * @returns undefined when the upstream says that there is no such upload.
 */
export async function uploadState(
  ask: Ask,
  resource: Resource,
  known: number,
): Promise<UpstreamUpload | undefined> {
  // With the same token as the rest of the upload.
  const permission = {actions: 'pull,push'} as const;
  const request = {...resource, method: 'GET', headers: {}, slot: 'heads', permission} as const;
  const reply = await unlessEnded(write(ask, request, 'to report the state of an upload'));
  if (!reply) return undefined;
  const location = reply.headers.location === undefined ? resource.url : locationOf(reply);
  return {location: location.href, offset: bytesHeld(reply, known) ?? known, minChunk: minChunkOf(reply)};
}

/**
 * Sends the last bytes and closes the upload (distribution-spec, end-6).
 * @param resource its URL is the session's location.
 */
export async function finishUpload(
  ask: Ask,
  resource: Resource,
  digest: Digest,
  chunk: OutgoingChunk,
): Promise<BlobTaken> {
  const closed = {...resource, url: closing(resource.url, digest)};
  const {reply} = await sendChunk(ask, closed, {method: 'PUT', chunk, what: `the blob ${digest}`});
  return {created: reply.status === 201, digest: digestIn(reply)};
}

/** Cancels an upload (distribution-spec, end-14). Succeeds when the upstream does not know it any more. */
export async function cancelUpload(ask: Ask, resource: Resource): Promise<void> {
  const request = {...resource, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'} as const;
  await unlessEnded(write(ask, request, 'to cancel an upload'));
}

/** @returns false when the registry did not say that it created the blob. */
async function upload(ask: Ask, uploads: Resource, blob: BlobSource): Promise<boolean> {
  const session = await beginUpload(ask, uploads, {});
  if (session === 'mounted') return true;
  const chunk = {length: blob.size, range: undefined, bytes: blob.open()};
  const resource = {...uploads, url: new URL(session.location)};
  return (await finishUpload(ask, resource, blob.digest, chunk)).created;
}

/**
 * Uploads a blob unless the upstream has it (distribution-spec, "POST then PUT"). After a broken connection it begins a
 * new session: bytes sent twice to one session would be appended.
 * @param resource its URL is that of the blob.
 * @param uploads the URL where uploads begin.
 */
export async function pushBlob(ask: Ask, resource: Resource, uploads: URL, blob: BlobSource): Promise<void> {
  if (await headBlob(ask, resource)) return;
  for (let session = 1; ; session++) {
    try {
      const created = await upload(ask, {...resource, url: uploads}, blob);
      if (created || (await headBlob(ask, resource))) return;
      const reason = `accepted the bytes of ${blob.digest} but does not have the blob`;
      throw new UpstreamFailure('protocol', resource.url.host, reason);
    } catch (error) {
      const isBroken = error instanceof UpstreamFailure && error.kind === 'unreachable';
      if (!isBroken || session === MAX_SESSIONS) throw error;
    }
  }
}
