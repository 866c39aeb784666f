import type {IncomingHttpHeaders} from 'node:http';
import {bareMediaType} from '../../oci/media-type.ts';
import {SpoiledAnswer, UpstreamFailure} from '../port.ts';
import {type Body, collect, discard} from './body.ts';

/** The HTTP methods that upstreams are asked with. */
export type Method = 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';

/** The head of a response; its body is still to be read. */
export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  /** The URL that answered, after redirects. */
  url: URL;
  body: Body;
}

/** Reads one header as text; the values of a repeated header are joined with commas. */
export const header = (headers: IncomingHttpHeaders, name: string): string | undefined => {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
};

/** `Content-Length` in bytes; undefined when it is missing or malformed. */
export function contentLength({headers}: Reply): number | undefined {
  const field = header(headers, 'content-length') ?? '';
  return /^\d{1,15}$/.test(field) ? Number(field) : undefined;
}

/**
 * Reads a `Retry-After` field: seconds, or an HTTP date (RFC 9110, section 10.2.3).
 * @param now milliseconds since the epoch.
 * @returns milliseconds from now, at least 0; undefined when the field is missing or malformed.
 */
export function parseRetryAfter(field: string | undefined, now: number): number | undefined {
  const text = field?.trim() ?? '';
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = /^[A-Za-z]/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** As `parseRetryAfter`, for a reply's field. */
export const retryAfterOf = ({headers}: Reply, now: number): number | undefined =>
  parseRetryAfter(header(headers, 'retry-after'), now);

/** Names the host that answered, when a redirect led away from the upstream's; otherwise empty. */
export const whereFrom = ({url}: Pick<Reply, 'url'>, host: string): string =>
  url.host === host ? '' : ` (from ${url.host}, to which it redirects)`;

/** Client errors that are the upstream's answer to a write. 401, 403 and 429 depend on the caller and the rate instead. */
export const REFUSALS: readonly number[] = Array.from({length: 100}, (_, index) => 400 + index).filter(
  (status) => ![401, 403, 429].includes(status),
);

/**
 * The failure for a status that does not answer the request.
 * @param host the upstream's.
 * @param now milliseconds since the epoch.
 */
export function failureOf(reply: Reply, host: string, now: number): UpstreamFailure {
  const {status} = reply;
  const where = whereFrom(reply, host);
  if (status === 401 || status === 403)
    return new UpstreamFailure('denied', host, `denies access (${status})${where}`, {status});
  if (status === 508) {
    const reason = `received its own request again (508)${where}: upstream.url leads to this proxy`;
    return new UpstreamFailure('loop', host, reason);
  }
  const retryAfter = retryAfterOf(reply, now);
  const options = retryAfter === undefined ? {status} : {status, retryAfter};
  return new UpstreamFailure('status', host, `answered ${status}${where}`, options);
}

/** @throws UpstreamFailure `protocol` when the body is encoded although identity was requested. */
function requireIdentity({headers, url}: Reply): void {
  const encoding = header(headers, 'content-encoding')?.trim().toLowerCase() ?? 'identity';
  if (encoding === 'identity' || encoding === '') return;
  const reason = `answered with Content-Encoding ${encoding}, although identity was requested`;
  throw new UpstreamFailure('protocol', url.host, reason);
}

const HTML_TYPES: ReadonlySet<string> = new Set(['text/html', 'application/xhtml+xml']);

/** Headers that only a registry sends in answer to a write. Quay labels its answers to writes text/html. */
const WRITE_HEADERS = ['docker-content-digest', 'docker-upload-uuid', 'location'] as const;

/** An HTML page with a 2xx status: a login form or a maintenance notice answered, not the registry. */
export class HtmlAnswer extends SpoiledAnswer {
  constructor(host: string, reply: Pick<Reply, 'status' | 'url'>) {
    const where = whereFrom(reply, host);
    const reason = `answered ${reply.status} with an HTML page${where}: a login or maintenance page, not a registry's answer`;
    super('protocol', host, reason);
  }
}

/**
 * Rejects an HTML page, whatever its 2xx status.
 * @param host the upstream's, for the failure.
 * @throws HtmlAnswer
 */
function refuseHtml(reply: Reply, method: Method, host: string): void {
  if (!HTML_TYPES.has(bareMediaType(header(reply.headers, 'content-type')) ?? '')) return;
  const isRead = method === 'GET' || method === 'HEAD';
  if (isRead ? method === 'GET' && reply.status === 204 : answersWrite(reply)) return;
  throw new HtmlAnswer(host, reply);
}

/**
 * Accepts a 2xx reply, or closes its body.
 * @param host the upstream's, for the failure.
 * @throws UpstreamFailure `protocol` when the reply is encoded; HtmlAnswer when it is an HTML page.
 */
export function requireRegistryAnswer(reply: Reply, method: Method, host: string): void {
  try {
    requireIdentity(reply);
    refuseHtml(reply, method, host);
  } catch (error) {
    reply.body.close();
    throw error;
  }
}

/** A reply without a body, or with a header that only a registry sends, is not a page, whatever its media type. */
const answersWrite = (reply: Reply): boolean =>
  reply.status === 204 ||
  contentLength(reply) === 0 ||
  WRITE_HEADERS.some((name) => reply.headers[name] !== undefined);

const MAX_ERROR_BYTES = 64 * 1024;
/** Characters of an upstream's message that are repeated in ours. */
const MAX_MESSAGE_LENGTH = 300;

/** The first error of an OCI error body. */
export interface Explanation {
  code?: string;
  /** On one line; empty when there is none. */
  message: string;
}

const oneLine = (value: unknown): string =>
  typeof value === 'string' ? value.replaceAll(/\s+/g, ' ').trim().slice(0, MAX_MESSAGE_LENGTH) : '';

/** Reads an OCI error body (distribution-spec, "Error Codes"). Never throws: the status is meaningful without it. */
export async function explanationOf(reply: Reply, host: string): Promise<Explanation> {
  if (bareMediaType(header(reply.headers, 'content-type')) !== 'application/json') {
    discard(reply.body);
    return {message: ''};
  }
  try {
    const bytes = await collect(reply.body, host, MAX_ERROR_BYTES, 'the error');
    const [{code, message}] = JSON.parse(bytes.toString('utf8')).errors;
    return {...(oneLine(code) === '' ? {} : {code: oneLine(code)}), message: oneLine(message)};
  } catch {
    return {message: ''};
  }
}
