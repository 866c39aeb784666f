import {type Clock, sleep} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, createDigester, type Digest, type Digester} from '../../oci/digest.ts';
import type {Spool} from '../../storage/spool.ts';
import {
  type BlobBody,
  type Demand,
  Interrupted,
  SpoiledAnswer,
  UpstreamFailure,
} from '../../upstream/port.ts';
import {BlobAbsent, DigestMismatch, SpoolFailed} from '../failure.ts';
import type {Reservation} from '../space.ts';
import type {Progress} from './progress.ts';
import {requireContent, type Source, type Sources} from './source.ts';

/** What the upstream has now does not match what was received before. */
class ContentChanged extends Error {
  override readonly name = 'ContentChanged';
}

export interface DownloadParts {
  digest: Digest;
  /** When the upstream denies what it has begun to give, another one replaces it, if there are several. */
  source: Source & Partial<Pick<Sources, 'replace'>>;
  /** The size in bytes that a manifest names, for an upstream that does not say. */
  expected: number | undefined;
  /** What an earlier process has received of it. */
  found: AsyncIterable<Uint8Array> | readonly Uint8Array[];
  /** Where its bytes go. */
  spool: Pick<Spool, 'size' | 'append' | 'truncate'>;
  /** Grows with what becomes known of the size. */
  room: Reservation;
  progress: Progress;
  /** Who waits for it. */
  demand: Demand;
  clock: Clock;
  events: Events;
  stopping: AbortSignal;
}

/** How many attempts in a row may bring next to nothing before a broken download is given up. */
const MAX_FRUITLESS_ATTEMPTS = 5;
/** What an attempt has to bring, in bytes: an upstream that sends one byte per answer would otherwise be asked without end. */
const MIN_PROGRESS_BYTES = 16 * 1024;
/** The delay before the first resumption; doubled with each fruitless one. */
const RESUME_DELAY_MS = 200;
/** How long readers are kept waiting at most. An upstream that wants to be left alone for longer is asked by the next pull. */
const MAX_PAUSE_MS = 60_000;

/** How often a blob of which no client has received anything is downloaded again because its bytes were wrong. */
const MAX_REPLACEMENTS = 3;

/**
 * Downloads the whole blob into the spool and verifies its digest. A connection that breaks is resumed by Range; a
 * resumption that is refused or ends in a mismatch starts over from zero, once. A blob that is held back until it is
 * verified starts over after any mismatch.
 * @throws BlobAbsent, SpoolFailed, DigestMismatch or UpstreamFailure
 */
export async function download(parts: DownloadParts): Promise<void> {
  const {digest, spool, progress, clock, events, stopping} = parts;
  let digester = await rehash(parts);
  let resumed = progress.received > 0;
  events.emit('fill.start', {digest, resumedAt: progress.received});
  try {
    for (let replacements = 0; ; replacements++) {
      const {resumptions, changed} = await receiveAll(parts, digester);
      resumed ||= resumptions > 0;
      const reason = changed?.message ?? wrongContent(parts, digester.digest());
      if (reason === undefined) return;
      const mismatch = new DigestMismatch(`${parts.source.host} ${reason}`);
      events.emit('fill.mismatch', {digest, reason: mismatch.message});
      if (progress.isHeld ? replacements === MAX_REPLACEMENTS : !resumed) throw mismatch;
      if (progress.isHeld) await sleep(clock, RESUME_DELAY_MS * 2 ** replacements, stopping);
      resumed = false;
      digester = createDigester(algorithmOf(digest));
      // Before the spool is emptied: a reader that finds nothing there then knows why, and waits.
      progress.startOver();
      await writing(spool.truncate());
    }
  } catch (error) {
    if (error instanceof SpoolFailed) progress.leaveOff(digester.soFar());
    throw error;
  }
}

/** What is wrong with the bytes that were received; undefined when they are the blob. */
function wrongContent(
  {digest, progress: {received, size}}: DownloadParts,
  actual: Digest,
): string | undefined {
  if (actual === digest && (size ?? received) === received) return undefined;
  return `sent ${received} bytes with the digest ${actual}`;
}

/** Hashes what an earlier process left in the spool, so that it counts as received. */
async function rehash({digest, found, progress, stopping}: DownloadParts): Promise<Digester> {
  const digester = createDigester(algorithmOf(digest));
  let bytes = 0;
  for await (const chunk of found) {
    stopping.throwIfAborted();
    digester.update(chunk);
    bytes += chunk.length;
  }
  progress.found(bytes);
  return digester;
}

/** @returns how many resumptions it took, and why the last of them failed */
async function receiveAll(
  parts: DownloadParts,
  digester: Digester,
): Promise<{resumptions: number; changed?: ContentChanged}> {
  const {digest, spool, progress, clock, events, stopping} = parts;
  for (let resumptions = 0, fruitless = 0; ; resumptions++) {
    const before = progress.received;
    try {
      await receive(parts, digester);
      return {resumptions};
    } catch (error) {
      if (error instanceof ContentChanged) return {resumptions, changed: error};
      if (error instanceof Interrupted && !stopping.aborted) {
        // It may wait for a long time, and nobody reads what it holds in memory.
        progress.forgetSpooled(spool.size);
        events.emit('fill.interrupted', {digest, at: progress.received});
        continue;
      }
      if (isRefused(error) && progress.begun && !stopping.aborted && parts.source.replace?.()) continue;
      fruitless = progress.received - before >= MIN_PROGRESS_BYTES ? 0 : fruitless + 1;
      // The client learns at once that the first answer failed; only what has begun is resumed.
      const isWorthResuming =
        error instanceof UpstreamFailure && progress.begun && fruitless < MAX_FRUITLESS_ATTEMPTS;
      if (!isWorthResuming || stopping.aborted) throw error;
      const pause = Math.max(error.retryAfter ?? 0, RESUME_DELAY_MS * 2 ** fruitless);
      if (pause > MAX_PAUSE_MS) throw error;
      events.emit('fill.resume', {digest, at: progress.received, reason: error.message});
      await sleep(clock, pause, stopping);
    }
  }
}

/** Whether the upstream denies the blob to a caller, or hides it, which looks as if it were not there. */
const isRefused = (error: unknown): boolean =>
  error instanceof BlobAbsent || (error instanceof UpstreamFailure && error.kind === 'denied');

/** Room for a blob of unknown size is reserved in steps of so many bytes. */
const GROWTH_BYTES = 4 * 1024 * 1024;
const growthOf = (bytes: number): number => Math.ceil(bytes / GROWTH_BYTES) * GROWTH_BYTES;

/** One answer of the upstream, from where we are to where it ends or breaks. */
async function receive(
  {digest, source, demand, expected, progress, spool, room, stopping}: DownloadParts,
  digester: Digester,
): Promise<void> {
  const answer = await opened(source, demand, progress.received);
  if (!answer) throw new BlobAbsent(`${source.host} does not have it`);
  const close = () => answer.close();
  stopping.addEventListener('abort', close);
  try {
    // Closing may have come while the upstream was asked.
    stopping.throwIfAborted();
    refuseOtherSize(answer.size, progress.size);
    requireContent(source.host, digest, answer);
    const size = answer.size ?? progress.size ?? expected;
    // Before the readers are told that it arrives: without room, each goes on with a stream of its own.
    await writing(room.grow(size ?? progress.received));
    progress.begin(size);
    for await (const chunk of unseen(answer, progress.received)) {
      if (progress.received + chunk.length > (progress.size ?? Number.POSITIVE_INFINITY)) {
        throw new ContentChanged(`sent more than the ${progress.size} bytes that it has`);
      }
      if (size === undefined) await writing(room.grow(growthOf(progress.received + chunk.length)));
      digester.update(chunk);
      progress.take(chunk, spool.size);
      await writing(spool.append(chunk));
    }
  } finally {
    stopping.removeEventListener('abort', close);
    close();
  }
  if (progress.received < (progress.size ?? 0)) {
    throw new UpstreamFailure(
      'unreachable',
      source.host,
      `ended after ${progress.received} of ${progress.size} bytes`,
    );
  }
}

/** Asks for what follows the bytes that are here. */
async function opened(source: Source, demand: Demand, received: number): Promise<BlobBody | undefined> {
  if (received === 0) return source.open(demand);
  try {
    // Asks for one byte that is already here, so that the range can be satisfied even when nothing is missing.
    return await source.open(demand, {start: received - 1});
  } catch (error) {
    if (error instanceof SpoiledAnswer) throw error;
    // Usually a 416: what an earlier process or another upstream left here is longer than the blob.
    if (!(error instanceof UpstreamFailure) || error.kind !== 'protocol') throw error;
    throw new ContentChanged(`cannot go on after ${received} bytes: ${error.message}`);
  }
}

/** Clients received the first length: with another one, their responses would end too early or too late. */
function refuseOtherSize(named: number | undefined, known: number | undefined): void {
  if (named === undefined || known === undefined || named === known) return;
  throw new ContentChanged(`names a length of ${named} bytes and named ${known} bytes before`);
}

/** The answer's bytes without those that are already here: an upstream may ignore the range. */
async function* unseen({body, start}: BlobBody, received: number): AsyncGenerator<Uint8Array, void> {
  let skip = received - start;
  for await (const chunk of body) {
    if (skip < chunk.length) yield skip > 0 ? chunk.subarray(skip) : chunk;
    skip = Math.max(0, skip - chunk.length);
  }
}

/** Marks the failures of what writes to the spool. @throws SpoolFailed */
export async function writing<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new SpoolFailed(error instanceof Error ? error.message : String(error), {cause: error});
  }
}
