import type {Ask, Resource} from '../api-request.ts';
import {type BlobBody, type Demand, type RequestedRange, UpstreamFailure} from '../port.ts';
import {discard} from '../transport/body.ts';
import {contentLength, header, type Reply} from '../transport/reply.ts';
import {EMPTY, write} from './refusal.ts';

const ANY = {accept: '*/*'};

const protocolFault = (resource: Resource, reason: string): UpstreamFailure =>
  new UpstreamFailure('protocol', resource.url.host, reason);

/** What a 206 or 416 says about the bytes of its body. */
export interface ContentRange {
  /** Offsets of the first and last byte of the body; undefined in a 416. */
  start: number | undefined;
  end: number | undefined;
  /** The whole blob, in bytes; undefined when the upstream does not say. */
  size: number | undefined;
}

const CONTENT_RANGE = /^bytes\s+(?:(\d{1,15})-(\d{1,15})|\*)\/(?:(\d{1,15})|\*)$/i;

/** Parses `Content-Range` (RFC 9110, section 14.4); undefined when it is missing, malformed or contradicts itself. */
export function parseContentRange(field: string | undefined): ContentRange | undefined {
  const match = CONTENT_RANGE.exec(field?.trim() ?? '');
  if (!match) return undefined;
  const [start, end, size] = match
    .slice(1)
    .map((digits) => (digits === undefined ? undefined : Number(digits)));
  if (start !== undefined && end !== undefined) {
    if (start > end || (size !== undefined && end >= size)) return undefined;
  }
  return {start, end, size};
}

/**
 * Uses HEAD, and a GET of the first byte when HEAD gives no length or is not supported. A length of 0 counts as none: some
 * servers send it with every HEAD, and empty blobs are rare.
 */
export async function headBlob(
  ask: Ask,
  resource: Resource,
): Promise<{size: number | undefined} | undefined> {
  const expected = [404, 405, 501];
  const reply = await ask({...resource, method: 'HEAD', headers: ANY, slot: 'heads', expected});
  if (reply.status === 404) return undefined;
  const size = reply.status < 300 ? contentLength(reply) : undefined;
  return size ? {size} : sizeByRange(ask, resource);
}

async function sizeByRange(ask: Ask, resource: Resource): Promise<{size: number | undefined} | undefined> {
  const headers = {...ANY, range: 'bytes=0-0'};
  // An empty blob has no first byte: 416 with `bytes */0`.
  const reply = await ask({...resource, method: 'GET', headers, slot: 'heads', expected: [404, 416]});
  discard(reply.body);
  if (reply.status === 404) return undefined;
  if (reply.status === 200) return {size: contentLength(reply)};
  return {size: parseContentRange(header(reply.headers, 'content-range'))?.size};
}

/** Which part of the blob a reply's body is. */
interface Extent {
  start: number;
  size: number | undefined;
  /** The body's length in bytes, for us to check; undefined when node checks it. */
  length: number | undefined;
}

function extentOf(reply: Reply, resource: Resource, range: RequestedRange | undefined): Extent {
  if (reply.status === 416)
    throw protocolFault(resource, `answered 416${range ? ` to "${rangeField(range)}"` : ''}`);
  // RFC 9110, section 14.2: a server may ignore Range and send the whole.
  if (reply.status !== 206) return {start: 0, size: contentLength(reply), length: undefined};
  const field = header(reply.headers, 'content-range');
  const sent = parseContentRange(field);
  if (!range || sent?.start === undefined || sent.end === undefined) {
    const asked = range ? `"${rangeField(range)}"` : 'a request without Range';
    throw protocolFault(resource, `answered 206 with Content-Range "${field ?? ''}" to ${asked}`);
  }
  if (sent.start !== range.start || (range.end !== undefined && sent.end > range.end))
    throw protocolFault(resource, `answered Content-Range "${field}" to "${rangeField(range)}"`);
  return {start: sent.start, size: sent.size, length: sent.end - sent.start + 1};
}

const rangeField = ({start, end}: RequestedRange): string => `bytes=${start}-${end ?? ''}`;

async function* exactly(
  chunks: AsyncIterable<Uint8Array>,
  length: number,
  host: string,
): AsyncGenerator<Uint8Array> {
  let left = length;
  for await (const chunk of chunks) {
    left -= chunk.length;
    if (left < 0)
      throw new UpstreamFailure('protocol', host, `sent more than the ${length} bytes of its Content-Range`);
    yield chunk;
  }
  if (left > 0) {
    const reason = `ended the body ${left} bytes before the end of its Content-Range`;
    throw new UpstreamFailure('unreachable', host, reason);
  }
}

/**
 * @param place `bodies` for a body that is read as fast as it comes, with its demand; `streams` for one that a client
 * reads at its own pace.
 * @returns undefined when the upstream says that there is no such blob. The connection is held until the body ends.
 */
export async function getBlob(
  ask: Ask,
  resource: Resource,
  range: RequestedRange | undefined,
  place: {slot: 'bodies'; demand: Demand | undefined} | {slot: 'streams'},
): Promise<BlobBody | undefined> {
  const headers = range ? {...ANY, range: rangeField(range)} : ANY;
  const reply = await ask({...resource, method: 'GET', headers, ...place, expected: [404, 416]});
  const {body} = reply;
  if (reply.status === 404) {
    discard(body);
    return undefined;
  }
  try {
    const {start, size, length} = extentOf(reply, resource, range);
    const chunks = length === undefined ? body.chunks : exactly(body.chunks, length, resource.url.host);
    return {size, start, body: chunks, close: () => body.close()};
  } catch (error) {
    body.close();
    throw error;
  }
}

/** @throws UpstreamRefusal when there is no such blob (404), or blobs cannot be deleted (405). */
export async function deleteBlob(ask: Ask, resource: Resource): Promise<void> {
  const request = {...resource, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'} as const;
  await write(ask, request, 'to delete the blob');
}
