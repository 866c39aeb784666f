import {type BlobSource, blobOf} from '../oci/blob.ts';
import {bareMediaType} from '../oci/media-type.ts';
import {headBlob} from './blobs.ts';
import {collect, discard} from './body.ts';
import type {Exchange, Question} from './exchange.ts';
import {UpstreamFailure} from './port.ts';
import {header, type Reply} from './request.ts';
import type {Target} from './target.ts';

const EMPTY = blobOf(Buffer.alloc(0));
/** Refusals of what was sent; their body says why. */
const REFUSALS = [400, 404, 405, 406, 409, 413, 415, 416, 422];
const MOST_ERROR_BYTES = 64 * 1024;
/** Upload sessions that are opened for one blob while connections break. */
const SESSIONS = 3;

/** What an OCI error body says, on one line; empty when the body is none. */
async function explanationOf(reply: Reply, host: string): Promise<string> {
  if (bareMediaType(header(reply.headers, 'content-type')) !== 'application/json') {
    discard(reply.body);
    return '';
  }
  try {
    const {errors} = JSON.parse(
      (await collect(reply.body, host, MOST_ERROR_BYTES, 'the error')).toString('utf8'),
    );
    const [{code, message}] = errors;
    return [code, message]
      .filter((part) => typeof part === 'string' && part !== '')
      .join(': ')
      .replaceAll(/\s+/g, ' ')
      .slice(0, 300);
  } catch {
    // The refusal stands; its reason stays unknown.
    return '';
  }
}

type Write = Omit<Question, 'slot' | 'answers'>;

/** @throws UpstreamFailure `status` with the registry's own reason when it refuses. */
async function write(ask: Exchange['ask'], question: Write, what: string): Promise<Reply> {
  const reply = await ask({...question, slot: 'bodies', answers: REFUSALS});
  if (reply.status >= 200 && reply.status < 300) {
    discard(reply.body);
    return reply;
  }
  const {host} = question.url;
  const explanation = await explanationOf(reply, host);
  const reason = `refuses ${what} (${reply.status}${explanation === '' ? '' : ` ${explanation}`})`;
  throw new UpstreamFailure('status', host, reason);
}

/** Where the session wants its bytes; its own query is kept (distribution-spec, "POST then PUT"). */
function sessionOf({headers, url}: Reply, host: string, {digest}: BlobSource): URL {
  const session = URL.parse(header(headers, 'location') ?? '', url.href);
  if (!session || !header(headers, 'location')) {
    throw new UpstreamFailure('protocol', host, 'opened an upload without a Location that is a URL');
  }
  if (session.protocol !== url.protocol && session.protocol !== 'https:') {
    throw new UpstreamFailure('protocol', host, `wants the upload at ${session.origin}, which is not secure`);
  }
  // Appended as text: what stands there is the registry's, and is not to be spelled in another way.
  session.search += `${session.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
  return session;
}

async function upload(ask: Exchange['ask'], uploads: Target, blob: BlobSource): Promise<void> {
  const opened = await write(ask, {...uploads, method: 'POST', headers: {}, body: EMPTY}, 'an upload');
  const url = sessionOf(opened, uploads.url.host, blob);
  const headers = {'content-type': 'application/octet-stream'};
  // Sent twice to one session, the bytes would follow each other.
  await write(
    ask,
    {...uploads, url, method: 'PUT', headers, body: blob, attempts: 'one'},
    `the blob ${blob.digest}`,
  );
}

/**
 * Uploads a blob unless it is there (distribution-spec, "POST then PUT"). A connection that breaks costs a new session.
 * @param target its URL is that of the blob.
 * @param uploads the URL under which uploads begin.
 */
export async function pushBlob(
  ask: Exchange['ask'],
  target: Target,
  uploads: URL,
  blob: BlobSource,
): Promise<void> {
  if (await headBlob(ask, target)) return;
  for (let session = 1; ; session++) {
    try {
      return await upload(ask, {...target, url: uploads}, blob);
    } catch (error) {
      const broken = error instanceof UpstreamFailure && error.kind === 'unreachable';
      if (!broken || session === SESSIONS) throw error;
    }
  }
}

/** Puts a manifest (distribution-spec, "Pushing Manifests"). What the registry says of its subject proves nothing. */
export async function putManifest(
  ask: Exchange['ask'],
  target: Target,
  {mediaType, bytes}: {mediaType: string; bytes: Buffer},
): Promise<void> {
  const headers = {'content-type': mediaType};
  await write(ask, {...target, method: 'PUT', headers, body: blobOf(bytes)}, 'the manifest');
}
