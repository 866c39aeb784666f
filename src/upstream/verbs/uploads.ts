import type {Algorithm, Digest} from '../../oci/digest.ts';
import type {RepositoryName} from '../../oci/name.ts';
import type {Exchange} from '../exchange.ts';
import {
  type BlobTaken,
  type OutgoingChunk,
  UpstreamFailure,
  UpstreamRefusal,
  type UpstreamUpload,
} from '../port.ts';
import type {Reply} from '../transport/request.ts';
import type {Target} from '../transport/target.ts';
import {digestIn} from './manifests.ts';
import {EMPTY, write} from './refusal.ts';
import {bytesHeld, closing, locationOf, minChunkOf} from './session.ts';

/** What a new upload is to become. */
interface UploadWish {
  mount?: {digest: Digest; from?: RepositoryName};
  algorithm?: Algorithm;
}

const BYTES = {'content-type': 'application/octet-stream'};

/** @param counted the bytes that it has as far as we know. */
function uploadOf(reply: Reply, counted: number): UpstreamUpload {
  return {
    location: locationOf(reply).href,
    offset: bytesHeld(reply, counted) ?? counted,
    minChunk: minChunkOf(reply),
  };
}

function beginning({url}: Target, {mount, algorithm}: UploadWish): URL {
  const wished = new URL(url);
  if (mount) wished.searchParams.set('mount', mount.digest);
  if (mount?.from) wished.searchParams.set('from', mount.from);
  if (algorithm) wished.searchParams.set('digest-algorithm', algorithm);
  return wished;
}

/**
 * Begins an upload (distribution-spec, end-4a and end-11).
 * @param target its URL is the one under which uploads begin.
 * @throws UpstreamRefusal, UpstreamFailure
 */
export async function beginUpload(
  ask: Exchange['ask'],
  target: Target,
  wish: UploadWish,
): Promise<UpstreamUpload | 'mounted'> {
  const {mount, ...rest} = wish;
  const from = mount?.from;
  const question = {
    ...target,
    url: beginning(target, wish),
    method: 'POST',
    headers: {},
    body: EMPTY,
    slot: 'heads',
    ...(from ? {permission: {from}} : {}),
  } as const;
  try {
    const reply = await write(ask, question, 'an upload');
    if (mount && reply.status === 201) return 'mounted';
    return uploadOf(reply, 0);
  } catch (error) {
    // We may write here and not read there: then the bytes have to be sent.
    if (!from || !(error instanceof UpstreamFailure) || error.kind !== 'denied') throw error;
    return beginUpload(ask, target, rest);
  }
}

/** The same bytes, each chunk shown as it passes. Ended early, it ends what it reads from, whatever that waits for. */
const watched = (
  bytes: AsyncIterable<Uint8Array>,
  show: (chunk: Uint8Array) => void,
): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]() {
    const source = bytes[Symbol.asyncIterator]();
    return {
      async next() {
        const next = await source.next();
        if (!next.done) show(next.value);
        return next;
      },
      async return() {
        await source.return?.();
        return {done: true, value: undefined};
      },
    };
  },
});

/** What was asked of a session that may have ended meanwhile: undefined when the upstream knows none. */
async function unlessEnded(reply: Promise<Reply>): Promise<Reply | undefined> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof UpstreamRefusal && error.status === 404) return undefined;
    throw error;
  }
}

/** Sends bytes to a session, once; of an empty chunk nothing can be lost, so that it needs no care. */
async function sendChunk(
  ask: Exchange['ask'],
  target: Target,
  {method, chunk, what}: {method: 'PATCH' | 'PUT'; chunk: OutgoingChunk; what: string},
): Promise<{reply: Reply; sent: number}> {
  const {length, range} = chunk;
  const place: Record<string, string> = range ? {'content-range': `${range.start}-${range.end}`} : {};
  const question = {
    ...target,
    method,
    headers: {...BYTES, ...place},
    slot: 'uploads',
    attempts: 'one',
  } as const;
  if (length === 0) return {reply: await write(ask, {...question, body: EMPTY}, what), sent: 0};
  let sent = 0;
  const count = (piece: Uint8Array) => {
    sent += piece.length;
  };
  const stream = {length, bytes: watched(chunk.bytes, count)};
  const reply = await write(ask, {...question, stream}, what);
  return {reply, sent};
}

/**
 * Sends further bytes (distribution-spec, end-5).
 * @param target its URL is the session's location.
 * @param known the bytes that it has before them.
 * @returns the session as it is after them. Where the upstream does not tell, its offset is what was known and sent.
 * @throws UpstreamRefusal, with 416 and the upstream's own offset for a chunk out of order; UpstreamFailure; and what
 * reading the bytes throws.
 */
export async function appendUpload(
  ask: Exchange['ask'],
  target: Target,
  known: number,
  chunk: OutgoingChunk,
): Promise<UpstreamUpload> {
  const what = 'bytes of an upload';
  const {reply, sent} = await sendChunk(ask, target, {method: 'PATCH', chunk, what});
  return uploadOf(reply, known + sent);
}

/**
 * Asks where an upload stands (distribution-spec, end-13).
 * @param target its URL is the session's location.
 * @param known the bytes that it has as far as we know, which holds where the upstream does not tell.
 * @returns undefined when the upstream says that there is no such upload.
 */
export async function uploadState(
  ask: Exchange['ask'],
  target: Target,
  known: number,
): Promise<UpstreamUpload | undefined> {
  // With the token that the upload goes on with.
  const permission = {actions: 'pull,push'} as const;
  const question = {...target, method: 'GET', headers: {}, slot: 'heads', permission} as const;
  const reply = await unlessEnded(write(ask, question, 'to tell of an upload'));
  if (!reply) return undefined;
  const location = reply.headers.location === undefined ? target.url : locationOf(reply);
  return {location: location.href, offset: bytesHeld(reply, known) ?? known, minChunk: minChunkOf(reply)};
}

/**
 * Sends the last bytes and closes the upload (distribution-spec, end-6).
 * @param target its URL is the session's location.
 */
export async function finishUpload(
  ask: Exchange['ask'],
  target: Target,
  digest: Digest,
  chunk: OutgoingChunk,
): Promise<BlobTaken> {
  const at = {...target, url: closing(target.url, digest)};
  const {reply} = await sendChunk(ask, at, {method: 'PUT', chunk, what: `the blob ${digest}`});
  return {created: reply.status === 201, digest: digestIn(reply)};
}

/** Ends an upload that is not wanted any more (distribution-spec, end-14). One that is not there has ended. */
export async function cancelUpload(ask: Exchange['ask'], target: Target): Promise<void> {
  const question = {...target, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'} as const;
  await unlessEnded(write(ask, question, 'to end an upload'));
}
