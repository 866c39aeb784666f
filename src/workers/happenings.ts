import type {Clock} from '../clock.ts';
import {createEvents, type Events} from '../events.ts';
import {createPreparedReports, type PreparedReports} from '../http/prepared-reports.ts';
import type {SentBytes} from '../http/sent-bytes.ts';
import type {Happening, WorkerEvent} from './messages.ts';

/** What happens in a worker, collected for the owner. */
export interface Happenings {
  readonly events: Events;
  readonly reports: PreparedReports;
  /** What has happened since the last call. */
  take(): readonly Happening[];
}

const EVENTS: readonly WorkerEvent[] = [
  'client.stalled',
  'client.handshake-failed',
  'listener.failed',
  'disk.failed',
  'request.fault',
  'server.fault',
];

/** Requests that are heard of one by one are reported when so many have ended, or with what is counted. */
const MAX_WAITING = 500;

export interface HappeningsParts {
  /** A number that is 0 while nobody hears of each request. */
  heard: Int32Array;
  /** Takes what does not wait. */
  report(happenings: readonly Happening[]): void;
  sentBytes: SentBytes;
  clock: Clock;
}

export function createHappenings({heard, report, sentBytes, clock}: HappeningsParts): Happenings {
  const events = createEvents();
  for (const event of EVENTS)
    events.on(event, (...args: unknown[]) => report([{event, args} as unknown as Happening]));
  let waiting: Happening[] = [];
  const reports = createPreparedReports({
    sentBytes,
    isEachHeard: () => Atomics.load(heard, 0) > 0,
    given(given) {
      waiting.push({given});
      if (waiting.length < MAX_WAITING) return;
      report(waiting);
      waiting = [];
    },
    clock,
  });
  return {
    events,
    reports,
    take() {
      const counted = reports.take();
      const taken = counted.length > 0 ? [...waiting, {counted}] : waiting;
      waiting = [];
      return taken;
    },
  };
}
