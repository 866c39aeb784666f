import type {Exchange} from '../exchange.ts';
import {type BlobBody, type Demand, type RequestedRange, UpstreamFailure} from '../port.ts';
import {discard} from '../transport/body.ts';
import {contentLength, header, type Reply} from '../transport/request.ts';
import type {Target} from '../transport/target.ts';
import {parseContentRange} from './content-range.ts';
import {EMPTY, write} from './refusal.ts';

const ANY = {accept: '*/*'};

const protocolFault = (target: Target, reason: string): UpstreamFailure =>
  new UpstreamFailure('protocol', target.url.host, reason);

/**
 * Asks by HEAD, and by a GET of the first byte where that gives no length or is not supported. A length of 0 counts as
 * none: some servers give every HEAD that one, and blobs without a byte are rare.
 */
export async function headBlob(
  ask: Exchange['ask'],
  target: Target,
): Promise<{size: number | undefined} | undefined> {
  const reply = await ask({...target, method: 'HEAD', headers: ANY, slot: 'heads', answers: [404, 405, 501]});
  if (reply.status === 404) return undefined;
  const size = reply.status < 300 ? contentLength(reply) : undefined;
  return size ? {size} : sizeByRange(ask, target);
}

async function sizeByRange(
  ask: Exchange['ask'],
  target: Target,
): Promise<{size: number | undefined} | undefined> {
  const headers = {...ANY, range: 'bytes=0-0'};
  // An empty blob has no first byte: 416 with `bytes */0`.
  const reply = await ask({...target, method: 'GET', headers, slot: 'heads', answers: [404, 416]});
  discard(reply.body);
  if (reply.status === 404) return undefined;
  if (reply.status === 200) return {size: contentLength(reply)};
  return {size: parseContentRange(header(reply.headers, 'content-range'))?.size};
}

interface Extent {
  start: number;
  size: number | undefined;
  /** Bytes that the body must have, where no header that node compares says so. */
  length: number | undefined;
}

function extentOf(reply: Reply, target: Target, range: RequestedRange | undefined): Extent {
  if (reply.status === 416)
    throw protocolFault(target, `answered 416${range ? ` to "${rangeField(range)}"` : ''}`);
  // RFC 9110, section 14.2: a server may ignore Range and send the whole.
  if (reply.status !== 206) return {start: 0, size: contentLength(reply), length: undefined};
  const field = header(reply.headers, 'content-range');
  const sent = parseContentRange(field);
  if (!range || sent?.start === undefined || sent.end === undefined) {
    throw protocolFault(
      target,
      `answered 206 with Content-Range "${field ?? ''}" to ${range ? 'one range' : 'no range'}`,
    );
  }
  if (sent.start !== range.start || (range.end !== undefined && sent.end > range.end)) {
    throw protocolFault(target, `answered Content-Range "${field}" to "${rangeField(range)}"`);
  }
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
  if (left > 0)
    throw new UpstreamFailure(
      'unreachable',
      host,
      `ended the body ${left} bytes before its Content-Range does`,
    );
}

/**
 * @param place by whose pace the body is read: `bodies`, ours, with the demand for it; `streams`, a client's.
 * @returns undefined when the upstream says that there is no such blob. Its connection is held until the body ends.
 */
export async function getBlob(
  ask: Exchange['ask'],
  target: Target,
  range: RequestedRange | undefined,
  place: {slot: 'bodies'; demand: Demand | undefined} | {slot: 'streams'},
): Promise<BlobBody | undefined> {
  const headers = range ? {...ANY, range: rangeField(range)} : ANY;
  const reply = await ask({...target, method: 'GET', headers, ...place, answers: [404, 416]});
  const {body} = reply;
  if (reply.status === 404) {
    discard(body);
    return undefined;
  }
  try {
    const {start, size, length} = extentOf(reply, target, range);
    const chunks = length === undefined ? body.chunks : exactly(body.chunks, length, target.url.host);
    return {size, start, body: chunks, close: () => body.close()};
  } catch (error) {
    body.close();
    throw error;
  }
}

/** @throws UpstreamRefusal where there is no such blob (404), and where blobs cannot be deleted (405). */
export async function deleteBlob(ask: Exchange['ask'], target: Target): Promise<void> {
  await write(
    ask,
    {...target, method: 'DELETE', headers: {}, body: EMPTY, slot: 'heads'},
    'to delete the blob',
  );
}
