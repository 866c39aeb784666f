import {type BareItem, serializeItem, Token} from 'structured-headers';
import type {Caller} from '../caller.ts';
import type {Digest} from '../oci/digest.ts';
import type {CacheReport} from '../registry/freshness.ts';
import type {Route} from '../registry/namespace.ts';
import type {Repeat} from '../registry/repeat.ts';
import type {BlobFile} from '../storage/blob-files.ts';
import {type Request, singleParameter} from './request.ts';

/** Header fields by name. An undefined value is left out; a list becomes one field per element. */
export type HeaderFields = Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * What a request is answered with: a value, made without a connection. `send.ts` writes it, with the fields that all
 * answers have in common.
 */
export interface Answer {
  readonly status: number;
  /** Includes `Content-Length` only where it does not follow from `body`. */
  readonly headers: HeaderFields;
  /** A stream is read once, chunk by chunk. HEAD is answered with the length of a buffer. */
  readonly body?: Buffer | AsyncIterable<Uint8Array> | undefined;
  /** Where the bytes of a body that is a stream lie, if they do, all of them and nothing else. */
  readonly file?: BlobFile | undefined;
  /** How the cache produced it, for the log. */
  readonly report?: CacheReport;
  /** Why it is not what the client wanted, for the log. */
  readonly reason?: string;
  /** Who logs in by it, for the log: the door does not know that. */
  readonly caller?: string;
  /** How it may be given again to who may have it. Undefined: every request has to be looked at. */
  readonly repeat?: Repeat | undefined;
}

/**
 * Answers the requests to one endpoint. The router has parsed, routed and authorized them.
 * @template Place what the path names: a Route where it is a repository, a Registry where it is one, else undefined
 * @throws OciError for a refusal; anything else is a defect, answered with 500
 */
export type Handler<Place> = (request: Request, place: Place, caller: Caller) => Answer | Promise<Answer>;

/** A header field, or several of one name. */
export type Field = readonly [name: string, value: string | readonly string[]];

/**
 * The header fields of an answer, without those that differ each time.
 * @param namespace for `OCI-Namespace`
 */
export function fieldsOf(
  {status, headers, body}: Answer,
  method: string | undefined,
  namespace: string | undefined,
): Field[] {
  const isEmpty = body === undefined && method !== 'HEAD' && !BODILESS.has(status);
  const length = Buffer.isBuffer(body) ? body.length : isEmpty ? 0 : undefined;
  const all = {
    'OCI-Namespace': namespace,
    ...headers,
    ...(length === undefined ? {} : {'Content-Length': String(length)}),
  };
  return Object.entries(all).flatMap(([name, value]): Field[] =>
    value === undefined ? [] : [[name, value]],
  );
}

/** Statuses whose answers have no body, and no length of it either (RFC 9110, section 8.6). */
const BODILESS = new Set([204, 304]);

/** dist-spec, Warnings: at most 4,096 bytes over all of them. */
const WARNING_LIMIT_BYTES = 4096;
const NAME = new Token('backref');

/** How the cache produced an answer: `Cache-Status` (RFC 9211), `Age` (RFC 9111) and `Warning` (dist-spec, Warnings). */
export const reportHeaders = (report: CacheReport): HeaderFields => ({
  'Cache-Status': cacheStatus(report),
  Age: report.age === undefined ? undefined : String(report.age),
  Warning: report.warning === undefined ? undefined : warning(report.warning),
});

/** An RFC 9211 list member, as RFC 9651 writes it: `hit` and `fwd` exclude each other. */
export function cacheStatus({how, ttl, stored, collapsed, detail}: CacheReport): string {
  const parameters: [key: string, value: BareItem | undefined][] = [
    how === 'hit' ? ['hit', true] : ['fwd', new Token(how)],
    ['stored', stored || undefined],
    ['collapsed', collapsed || undefined],
    ['ttl', ttl],
    ['detail', detail === undefined ? undefined : new Token(detail)],
  ];
  const given = parameters.filter((entry): entry is [string, BareItem] => entry[1] !== undefined);
  return serializeItem(NAME, new Map(given));
}

/** dist-spec, Warnings: `299 - "text"`, no date, the text escaped as a quoted string (RFC 9110, section 5.6.4). */
export function warning(text: string): string {
  const printable = text.replaceAll(/[^\t\x20-\x7e]/g, '?');
  const escaped = printable.replaceAll(/["\\]/g, '\\$&').slice(0, WARNING_LIMIT_BYTES - '299 - ""'.length);
  // A cut must not leave half of an escaped pair behind.
  return `299 - "${escaped.replace(/(?<!\\)((?:\\\\)*)\\$/, '$1')}"`;
}

/** The digest of content, which is also its strong validator, and how the cache produced it. */
export const contentHeaders = (digest: Digest, report: CacheReport): HeaderFields => ({
  'Docker-Content-Digest': digest,
  ETag: etagOf(digest),
  ...reportHeaders(report),
});

/** A strong validator: the digest is the content. */
export const etagOf = (digest: Digest): string => `"${digest}"`;

/** RFC 9110, section 13.1.2: weak comparison against each member of the list, or `*`. */
export function noneMatch(ifNoneMatch: string | undefined, digest: Digest): boolean {
  if (ifNoneMatch === undefined) return false;
  const members = ifNoneMatch.split(',').map((member) => member.trim().replace(/^W\//, ''));
  return members.includes('*') || members.includes(etagOf(digest)) || members.includes(digest);
}

/** RFC 9110, section 13.1.5: a range counts only while the strong validator is the same; a date never proves that. */
export const ifRangeHolds = (ifRange: string | undefined, digest: Digest): boolean =>
  ifRange === undefined || ifRange.trim() === etagOf(digest);

/** A path in the client's repository for `Location`: path-absolute and in the client's own naming, `ns` repeated. */
export function locationOf(request: Request, {asked}: Route, path: string): string {
  const ns = singleParameter(request, 'ns');
  const query = ns === undefined ? '' : `?${new URLSearchParams({ns})}`;
  return `/v2/${asked}/${path}${query}`;
}

/**
 * `Link` to the next page (RFC 8288): path-absolute, in the client's own naming, and with its `ns` repeated.
 * @param query of the next page
 */
export function nextLink(request: Request, query: URLSearchParams): string {
  const ns = singleParameter(request, 'ns');
  if (ns !== undefined) query.set('ns', ns);
  // In quotes, as in the examples of the dist-spec: some clients look for exactly rel="next".
  return `<${request.path}?${query}>; rel="next"`;
}
