import {ANONYMOUS} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {mapConcurrently} from '../../concurrency.ts';
import type {Events} from '../../events.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import type {Metadata, UploadRecord} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import {UpstreamFailure, UpstreamRefusal} from '../../upstream/port.ts';
import type {Uploads} from '../push/uploads.ts';
import type {Registries} from '../registries.ts';

/** Ends abandoned uploads, here and at the upstreams that they were pushed through to. */
export interface UploadExpiry {
  /**
   * Removes the uploads that were last touched before `before`. Their sessions at upstreams are cancelled, with one
   * attempt each. A session that cannot be cancelled, or is skipped after several failures, expires at the upstream.
   * @param signal ends the cancelling
   * @returns the number of uploads removed
   */
  run(before: number, signal: AbortSignal): Promise<number>;
}

export interface UploadExpiryParts {
  uploads: Uploads;
  /** The registries as they are configured now. */
  registries(): Registries;
  events: Events;
}

/** Sessions that are cancelled at the same time; few, so that clients' requests get the connections to the upstream. */
const CONCURRENCY = 2;
/**
 * Failures after which a run skips an upstream. Together with the requests in flight they stay below the consecutive
 * failures that open its circuit by default: cleaning up must not make pulls fail.
 */
const MAX_FAILURES = 3;

export function createUploadExpiry({uploads, registries, events}: UploadExpiryParts): UploadExpiry {
  /** @param failures of each registry's upstream so far; updated */
  async function cancel({repository, upstream}: UploadRecord, failures: Map<string, number>): Promise<void> {
    const registry = registries().all.find(({name}) => name === repository.registry);
    // The configuration has changed: this upstream, or this repository there, is no longer written to.
    if (!upstream || registry?.push.mode !== 'through' || !registry.serves(repository.name)) return;
    // It knows the session as its caller's own.
    if (registry.approvals) return;
    if ((failures.get(registry.name) ?? 0) >= MAX_FAILURES) return;
    try {
      await registry.push.writer.cancelUpload(repository.name, upstream.location, ANONYMOUS);
    } catch (error) {
      // The upstream's client reports failures of the upstream. A refusal is not a failure.
      if (error instanceof UpstreamRefusal) return;
      if (error instanceof UpstreamFailure) {
        failures.set(registry.name, (failures.get(registry.name) ?? 0) + 1);
        return;
      }
      events.emit('background.failed', {task: 'cancel an upload at its upstream', error});
    }
  }

  async function cancelAll(records: readonly UploadRecord[], signal: AbortSignal): Promise<void> {
    const failures = new Map<string, number>();
    await mapConcurrently(records, CONCURRENCY, async (record) => {
      if (!signal.aborted) await cancel(record, failures);
    });
  }

  return {
    async run(before, signal) {
      const removed = await uploads.sweep(before);
      const sessions = removed.filter(({upstream}) => upstream !== undefined);
      if (sessions.length > 0) await unlessAborted(cancelAll(sessions, signal), signal);
      return removed.length;
    },
  };
}

/** Resolves with the work, or when the signal is aborted; requests in flight then are not waited for. */
async function unlessAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  const {promise: aborted, resolve} = Promise.withResolvers<void>();
  const end = () => resolve();
  signal.addEventListener('abort', end, {once: true});
  if (signal.aborted) resolve();
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', end);
  }
}

/** How long a spool is kept after it was last written. */
const SPOOL_LIFETIME_MS = 24 * 60 * 60 * 1000;

export interface SpoolSweepParts {
  metadata: Pick<Metadata, 'upload'>;
  spools: Spools;
  clock: Clock;
}

/**
 * Removes abandoned spools: partial downloads, and uploads without a record, which a killed process leaves behind. An
 * upload with a record may have an older spool, since asking for its state keeps it alive: that spool is removed with
 * the record.
 * @returns the number of spools removed
 */
export const createSpoolSweep =
  ({metadata, spools, clock}: SpoolSweepParts) =>
  (): Promise<number> =>
    spools.sweep(clock.now() - SPOOL_LIFETIME_MS, async (id) => (await metadata.upload(id)) !== undefined);

/** How long a damaged copy is kept for a person to look at. */
const QUARANTINE_LIFETIME_MS = 30 * 24 * 60 * 60 * 1000;

/**
 * Removes old damaged copies. What was pushed here is kept.
 * @returns the number removed
 */
export const createQuarantineSweep =
  ({store, clock}: {store: BlobStore; clock: Clock}) =>
  (): Promise<number> =>
    store.expireSetAside(clock.now() - QUARANTINE_LIFETIME_MS);
