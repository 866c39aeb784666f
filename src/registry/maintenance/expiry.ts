import {ANONYMOUS} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Metadata, UploadRecord} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import {UpstreamFailure, UpstreamRefusal} from '../../upstream/port.ts';
import type {Uploads} from '../push/uploads.ts';
import type {Registries} from '../registries.ts';

/** The end of uploads that nobody goes on with, here and at the upstreams that they were pushed through to. */
export interface UploadExpiry {
  /**
   * Removes the uploads that were last heard of before `before`, and gives their number. What an upstream has of them
   * is cancelled there, once: where that fails, or has failed a few times already, the upstream's own time for it runs
   * out.
   * @param signal ends the cancelling
   */
  run(before: number, signal: AbortSignal): Promise<number>;
}

export interface UploadExpiryParts {
  uploads: Uploads;
  /** The registries as they are configured now. */
  registries(): Registries;
  events: Events;
}

/** Sessions that are cancelled side by side: clients' requests to an upstream keep their share of connections. */
const CONCURRENCY = 2;
/**
 * Failures after which a run leaves an upstream alone. With those under way they stay below the failures in a row that
 * open its circuit by default: nobody's pull is to fail for what is only tidied up.
 */
const MAX_FAILURES = 3;

export function createUploadExpiry({uploads, registries, events}: UploadExpiryParts): UploadExpiry {
  /** @param failures of each registry's upstream so far; counted on */
  async function cancel({repository, upstream}: UploadRecord, failures: Map<string, number>): Promise<void> {
    const registry = registries().all.find(({name}) => name === repository.registry);
    // Configured otherwise since: nobody is to be written to any more.
    if (!upstream || registry?.push.mode !== 'through') return;
    if ((failures.get(registry.name) ?? 0) >= MAX_FAILURES) return;
    try {
      await registry.push.writer.cancelUpload(repository.name, upstream.location, ANONYMOUS);
    } catch (error) {
      // A failure of the upstream's is told by its client; a refusal is none.
      if (error instanceof UpstreamRefusal) return;
      if (error instanceof UpstreamFailure) {
        failures.set(registry.name, (failures.get(registry.name) ?? 0) + 1);
        return;
      }
      events.emit('background.failed', {task: 'cancel an upload at its upstream', error});
    }
  }

  async function cancelAll(records: readonly UploadRecord[], signal: AbortSignal): Promise<void> {
    const left = records.values();
    const failures = new Map<string, number>();
    const worker = async () => {
      // One iterator for all of them: each takes the next.
      for (const record of left) {
        if (signal.aborted) return;
        await cancel(record, failures);
      }
    };
    await Promise.all(Array.from({length: CONCURRENCY}, worker));
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

/** Resolves with the work, or when the signal is aborted; what is under way then is left to itself. */
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

/** How long a spool to which nothing is added waits for somebody who goes on with it. */
const SPOOL_LIFETIME_MS = 24 * 60 * 60 * 1000;

export interface SpoolSweepParts {
  metadata: Pick<Metadata, 'upload'>;
  spools: Spools;
  clock: Clock;
}

/**
 * Makes the call that removes what nobody goes on with: the beginnings of downloads, and what is left of uploads that have
 * no record, as when the process was killed. An upload that has one may be older, since asking where it stands keeps it
 * alive: its spool goes with its record. Gives the number of spools removed.
 */
export const createSpoolSweep =
  ({metadata, spools, clock}: SpoolSweepParts) =>
  (): Promise<number> =>
    spools.sweep(clock.now() - SPOOL_LIFETIME_MS, async (id) => (await metadata.upload(id)) !== undefined);
