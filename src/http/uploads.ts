import type {Caller} from '../caller.ts';
import {covers, scopeFor} from '../identity/scopes.ts';
import {algorithmOf, type Digest, parseAlgorithm, parseDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {type ByteRange, rangeLength} from '../oci/range.ts';
import {parseUploadId, type UploadId, uploadRange} from '../oci/upload.ts';
import {type Route, routeOf} from '../registry/namespace.ts';
import type {Chunk, Push, UploadOptions, UploadState} from '../registry/push/push.ts';
import {type Answer, type Handler, locationOf} from './answer.ts';
import {holderOf} from './limits.ts';
import {headerOf, type Request, singleParameter} from './request.ts';

/** dist-spec, end-4a, end-4b (the whole blob in one request), end-4c and end-11. */
export const beginUpload =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    const digest = digestAsked(request, 'digest');
    const chunk = digest && chunkOf(request);
    const mount = mountAsked(request, route, caller);
    const algorithm = algorithmAsked(request) ?? (digest && algorithmOf(digest));
    const begun = await push.begin(
      route,
      {algorithm, mount, holder: holderOf(caller, request.origin.client)},
      caller,
    );
    if (begun === 'mounted') return stored(request, route, mount?.digest);
    if (!chunk) return underWay(request, route, 202, begun);
    try {
      await push.finish(route, begun.id, digest, chunk, caller);
    } catch (error) {
      // The client never learns of this upload: neither it nor anybody else can continue it. It may have ended with
      // what went wrong; else it expires.
      await push.cancel(route, begun.id, caller).catch(() => {});
      throw error;
    }
    return stored(request, route, digest);
  };

/** dist-spec, end-13. */
export const getUpload =
  (push: Push): Handler<Route> =>
  async (request, route, caller) =>
    underWay(request, route, 204, await push.state(route, sessionOf(request), caller));

/** dist-spec, end-5. */
export const appendUpload =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    const id = sessionOf(request);
    const appended = push.append(route, id, chunkOf(request), caller);
    return underWay(request, route, 202, await withLocation(request, route, id, appended));
  };

/** dist-spec, end-6. */
export const finishUpload =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    const id = sessionOf(request);
    const digest = digestAsked(request, 'digest');
    if (digest === undefined) throw digestMissing();
    await withLocation(request, route, id, push.finish(route, id, digest, chunkOf(request), caller));
    return stored(request, route, digest);
  };

/** dist-spec, end-14. */
export const cancelUpload =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    await push.cancel(route, sessionOf(request), caller);
    return {status: 204, headers: {}};
  };

const sessionOf = ({params}: Request): UploadId => parseUploadId(params['session'] ?? '');

function digestAsked(request: Request, parameter: 'digest' | 'mount'): Digest | undefined {
  const text = singleParameter(request, parameter);
  return text === undefined ? undefined : parseDigest(text);
}

function algorithmAsked(request: Request): UploadOptions['algorithm'] {
  const text = singleParameter(request, 'digest-algorithm');
  return text === undefined ? undefined : parseAlgorithm(text);
}

/**
 * dist-spec, Mounting a blob: where it cannot be mounted from the repository that `from` names, an upload begins. A token
 * must be for that repository as well, so clients ask for both. No token is for a mount without `from`.
 */
function mountAsked(request: Request, route: Route, {scopes}: Caller): UploadOptions['mount'] {
  const digest = digestAsked(request, 'mount');
  const name = singleParameter(request, 'from');
  if (digest === undefined || (scopes && !covers(scopes, scopeFor(name ?? '', 'pull')))) return undefined;
  if (name === undefined) return {digest, from: undefined};
  const from = routeFrom(request, name);
  return from?.registry === route.registry ? {digest, from} : undefined;
}

/** A repository in the client's own naming; undefined where the name leads to none. */
function routeFrom(request: Request, name: string): Route | undefined {
  const ns = singleParameter(request, 'ns');
  try {
    return routeOf(request.registries, {name, ns, host: headerOf(request, 'host')});
  } catch (error) {
    if (error instanceof OciError) return undefined;
    throw error;
  }
}

/** dist-spec, Pushing a blob in chunks: `start-end`. Some clients add unit and size, as in RFC 9110. */
const CONTENT_RANGE = /^(?:bytes )?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/;

/**
 * The bytes of an upload that a request carries.
 * @throws OciError 400 for a range that is malformed or of another length than the body
 */
function chunkOf(request: Request): Chunk {
  const {length} = request.body;
  const range = parseContentRange(headerOf(request, 'content-range'));
  const bytes = request.body.read('BLOB_UPLOAD_INVALID');
  if (!range) return {length, range, bytes};
  const size = rangeLength(range);
  if (length !== undefined && length !== size) throw otherLength(size, String(length));
  return {length: size, range, bytes: exactly(size, bytes)};
}

function parseContentRange(text: string | undefined): ByteRange | undefined {
  if (text === undefined) return undefined;
  const [, start, end] = CONTENT_RANGE.exec(text.trim()) ?? [];
  if (Number(start) <= Number(end)) return {start: Number(start), end: Number(end)};
  throw new OciError('BLOB_UPLOAD_INVALID', {
    message: `Content-Range is "${text.slice(0, 80)}": write the offsets of the first and the last byte, e.g. 0-1023 for the first KiB`,
  });
}

/** A body of undeclared length has to match its range all the same. */
const exactly = (size: number, bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]() {
    const source = bytes[Symbol.asyncIterator]();
    const end = async () => {
      await source.return?.();
      return {done: true as const, value: undefined};
    };
    let left = size;
    return {
      async next() {
        const next = await source.next();
        if (next.done && left > 0) throw otherLength(size, String(size - left));
        if (next.done) return next;
        left -= next.value.length;
        if (left >= 0) return next;
        await end();
        throw otherLength(size, `more than ${size}`);
      },
      return: end,
    };
  },
});

const otherLength = (size: number, found: string): OciError =>
  new OciError('SIZE_INVALID', {
    message: `Content-Range names ${size} bytes, but the body has ${found}`,
  });

/** dist-spec, Pushing a blob in chunks: 416 for a chunk out of order, here with where to continue. */
async function withLocation<T>(request: Request, route: Route, id: UploadId, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof OciError) || error.status !== 416) throw error;
    const {code, message, detail, status} = error;
    const headers = {...error.headers, Location: locationOf(request, route, `blobs/uploads/${id}`)};
    throw new OciError(code, {message, ...(detail ? {detail} : {}), status, headers, cause: error});
  }
}

const underWay = (
  request: Request,
  route: Route,
  status: number,
  {id, offset, minChunk}: UploadState,
): Answer => ({
  status,
  headers: {
    Location: locationOf(request, route, `blobs/uploads/${id}`),
    Range: uploadRange(offset),
    'Docker-Upload-UUID': id,
    'OCI-Chunk-Min-Length': minChunk === undefined ? undefined : String(minChunk),
  },
});

const stored = (request: Request, route: Route, digest: Digest | undefined): Answer => ({
  status: 201,
  headers:
    digest === undefined
      ? {}
      : {Location: locationOf(request, route, `blobs/${digest}`), 'Docker-Content-Digest': digest},
});

const digestMissing = (): OciError =>
  new OciError('DIGEST_INVALID', {
    message: 'the digest of the whole blob is missing: close the upload with PUT <location>?digest=<digest>',
  });
