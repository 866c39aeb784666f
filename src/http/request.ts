import type {IncomingHttpHeaders, IncomingMessage} from 'node:http';
import {type Digest, parseDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {parseReference, type Reference} from '../oci/name.ts';
import type {PageQuery} from '../registry/page.ts';
import type {Registries} from '../registry/registries.ts';
import type {RequestBody} from './body.ts';
import type {Entrance} from './entrance.ts';
import type {Origin} from './forwarded.ts';

/** What a client asks: a value that handlers read. */
export interface Request {
  readonly method: string;
  /** As the client sent it, without the query. */
  readonly path: string;
  readonly query: Readonly<Record<string, string | string[] | undefined>>;
  readonly headers: IncomingHttpHeaders;
  /** The parts of the path that its endpoint names, percent-decoded. */
  readonly params: Readonly<Record<string, string>>;
  readonly body: RequestBody;
  readonly entrance: Entrance;
  /** Who sent it, and the URL at which it reached the first trusted proxy, or this server. */
  readonly origin: Origin;
  /** The configuration that the request was routed with. */
  readonly registries: Registries;
  /** Aborted when the client has its answer, or has left. */
  closed(): AbortSignal;
}

/** A longer request target is answered with 414 (RFC 9110, section 15.5.15). */
const MAX_TARGET_LENGTH = 8 * 1024;

/** @throws OciError with status 414 */
export function refuseOverlong(target: string): void {
  if (target.length <= MAX_TARGET_LENGTH) return;
  throw new OciError('NAME_INVALID', {
    status: 414,
    message: `the request target has ${target.length} characters; at most ${MAX_TARGET_LENGTH} are allowed`,
  });
}

/** @param max how many header fields a request may have @throws OciError with status 431 */
export function refuseManyHeaders({rawHeaders}: Pick<IncomingMessage, 'rawHeaders'>, max: number): void {
  const count = rawHeaders.length / 2;
  if (count <= max) return;
  throw new OciError('UNSUPPORTED', {
    status: 431,
    limit: 'limits.headers.count',
    message: `the request has ${count} headers; limits.headers.count allows ${max}`,
  });
}

const ABSOLUTE = /^https?:\/\/([^/?#]+)(.*)$/is;

/** A request target in origin-form, with the host that it names itself. */
export interface RequestTarget {
  /** Path and query; begins with a slash. */
  path: string;
  /** Takes precedence over the `Host` header; undefined where the target names none. */
  host: string | undefined;
}

/**
 * Takes origin-form, and absolute-form as clients send it to proxies (RFC 9112, section 3.2).
 * @throws OciError 400 for every other form
 */
export function parseRequestTarget(target: string): RequestTarget {
  if (target.startsWith('/')) return {path: target, host: undefined};
  const [, host, rest = ''] = ABSOLUTE.exec(target) ?? [];
  if (host !== undefined) return {path: rest.startsWith('/') ? rest : `/${rest}`, host};
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the request target "${target.slice(0, 80)}" is neither a path nor an absolute http URL; it has to begin with /v2/`,
  });
}

/** @throws OciError 400 without the one `Host` that HTTP/1.1 requires (RFC 9112, section 3.2) */
export function refuseHosts({httpVersion, rawHeaders}: IncomingMessage): void {
  const given = rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === 'host').length;
  if (given === 1 || (given === 0 && httpVersion === '1.0')) return;
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the request has ${given} Host headers; HTTP/${httpVersion} requires exactly one`,
  });
}

/** The digest in the path. @throws OciError DIGEST_INVALID */
export const digestInPath = ({params}: Request): Digest => parseDigest(params['digest'] ?? '');

/** The tag or digest in the path. @throws OciError MANIFEST_INVALID or DIGEST_INVALID */
export const referenceInPath = ({params}: Request): Reference => parseReference(params['reference'] ?? '');

/** A header field; undefined where it is absent or empty. @param name in lower case */
export function headerOf({headers}: Pick<Request, 'headers'>, name: string): string | undefined {
  const value = headers[name];
  return (Array.isArray(value) ? value.join(', ') : value) || undefined;
}

/** True when the client wants the upstream asked (RFC 9111, section 5.2.1.4). */
export const noCache = (request: Request): boolean =>
  /(?:^|,)\s*(?:no-cache|max-age=0)\s*(?:,|$)/i.test(headerOf(request, 'cache-control') ?? '') ||
  /no-cache/i.test(headerOf(request, 'pragma') ?? '');

/** The value of a query parameter; undefined when it is absent. @throws OciError 400 when it is repeated */
export function singleParameter({query}: Pick<Request, 'query'>, name: string): string | undefined {
  const value = query[name];
  if (!Array.isArray(value)) return value;
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the query parameter "${name}" is given ${value.length} times; give it once`,
  });
}

/** Which page of a list is wanted. @throws OciError 400 */
export const pageQuery = (request: Request): PageQuery => ({
  n: parseCount(singleParameter(request, 'n')),
  last: singleParameter(request, 'last'),
});

/** The query of the next page: `n` is repeated. */
export const nextQuery = ({n}: PageQuery, last: string): URLSearchParams =>
  new URLSearchParams({...(n === undefined ? {} : {n: String(n)}), last});

/** `n` of a list: a whole number, 0 or more. @throws OciError 400 */
function parseCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the query parameter n is "${text.slice(0, 40)}"; give a whole number, 0 or more`,
  });
}
