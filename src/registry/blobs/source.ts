import type {Caller} from '../../caller.ts';
import {type Digest, plausibleSize} from '../../oci/digest.ts';
import {type BlobBody, type Demand, type RequestedRange, UpstreamFailure} from '../../upstream/port.ts';
import {BlobAbsent} from '../failure.ts';
import type {Route} from '../namespace.ts';

/** Where a blob comes from. */
export interface Source {
  /** The upstream's host. */
  readonly host: string;
  /**
   * Requests the blob, or what follows `range.start`, to be read as fast as it comes; undefined: it is not there.
   * @param demand whether anybody waits for it
   */
  open(demand: Demand, range?: RequestedRange): Promise<BlobBody | undefined>;
  /** The same, to be read at the pace of the client that waits for it. */
  stream(range?: RequestedRange): Promise<BlobBody | undefined>;
}

/** The sources of all who wait for one blob, each with the access of its own caller. One of them is used at a time. */
export interface Sources extends Source {
  /** Adds the source of one who waits. @returns what removes it */
  add(source: Source): () => void;
  /** Goes on with another one, because the present one may no longer have the blob. @returns false where there is none */
  replace(): boolean;
}

/** @param first the one that is used first */
export function createSources(first: Source): Sources {
  let present = first;
  const others = new Set<Source>();
  return {
    get host() {
      return present.host;
    },
    open: (demand, range) => present.open(demand, range),
    stream: (range) => present.stream(range),
    add(source) {
      others.add(source);
      return () => void others.delete(source);
    },
    replace() {
      const [next] = others;
      if (!next) return false;
      others.delete(next);
      present = next;
      return true;
    },
  };
}

/** The registry's upstream as the source of one blob. */
export const blobSource = ({registry, repository}: Route, digest: Digest, caller: Caller): Source => ({
  host: registry.upstream.host,
  open: (demand, range) => registry.upstream.getBlob(repository.name, digest, caller, range, demand),
  stream: (range) => registry.upstream.streamBlob(repository.name, digest, caller, range),
});

/** A blob that is requested from the upstream without being kept. */
export interface Wanted {
  readonly digest: Digest;
  /** The length that the client receives, in bytes; undefined where unknown. */
  readonly size: number | undefined;
}

async function opened(source: Source, {digest, size}: Wanted, range?: RequestedRange): Promise<BlobBody> {
  const answer = await source.stream(range);
  if (!answer) throw new BlobAbsent(`${source.host} does not have it`);
  try {
    requireContent(source.host, digest, answer);
    requireLength(source.host, answer.size, size);
  } catch (error) {
    answer.close();
    throw error;
  }
  return answer;
}

/**
 * Refuses an answer that claims to be empty: for a client it would end with its headers, before any digest is compared.
 * @throws UpstreamFailure `protocol` unless the blob is the empty one
 */
export function requireContent(host: string, digest: Digest, {size}: Pick<BlobBody, 'size'>): void {
  if (plausibleSize(digest, size) === size) return;
  throw new UpstreamFailure('protocol', host, `names a length of 0 bytes for ${digest}, which is not empty`);
}

/**
 * The client is about to receive the known length: with another one, its response would end too early or too late.
 * @throws UpstreamFailure `protocol` for another length, in bytes
 */
export function requireLength(host: string, named: number | undefined, known: number | undefined): void {
  if (named === undefined || known === undefined || named === known) return;
  const reason = `names a length of ${named} bytes for a blob whose length it named as ${known} bytes before`;
  throw new UpstreamFailure('protocol', host, reason);
}

/**
 * A part of a blob straight from the upstream, `start` to `end`, both inclusive. A part has no digest of its own: the
 * client verifies the whole blob.
 * @throws UpstreamFailure or BlobAbsent; UpstreamFailure from the iteration when the part is cut short
 */
export async function openPart(
  source: Source,
  wanted: Wanted,
  start: number,
  end: number,
): Promise<AsyncGenerator<Uint8Array, void>> {
  const answer = await opened(source, wanted, {start, end});
  if (answer.start > start) {
    answer.close();
    throw new UpstreamFailure(
      'protocol',
      source.host,
      `answered with bytes from ${answer.start} on, not ${start}`,
    );
  }
  return cut(answer, start, end, source.host);
}

async function* cut(
  {body, start: offset, close}: BlobBody,
  start: number,
  end: number,
  host: string,
): AsyncGenerator<Uint8Array, void> {
  let at = offset;
  try {
    for await (const chunk of body) {
      const piece = chunk.subarray(Math.max(0, start - at), Math.max(0, end + 1 - at));
      at += chunk.length;
      if (piece.length > 0) yield piece;
      if (at > end) return;
    }
  } finally {
    close();
  }
  throw new UpstreamFailure(
    'unreachable',
    host,
    `ended a part after ${at - start} of ${end + 1 - start} bytes`,
  );
}
