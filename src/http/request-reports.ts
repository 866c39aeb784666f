import {randomUUID} from 'node:crypto';
import type {Socket} from 'node:net';
import type {Clock} from '../clock.ts';
import type {EventMap, Events} from '../events.ts';
import {createSentBytes} from './sent-bytes.ts';

/** A request that has begun. */
export interface StartedRequest {
  /** In the answer's header, its error body and the log. */
  readonly id: string;
  readonly method: string;
  /** As the client sent it. */
  readonly url: string;
  readonly userAgent: string | undefined;
  /** On the monotonic clock. */
  readonly began: number;
}

/** What is known of a request when it has ended, beside what was known when it began. */
export type RequestEnd = Omit<EventMap['request.end'][0], keyof StartedRequest | 'ms' | 'bytes'>;

/** Reports every request, however it is answered: for the log, the audit, the metrics and the record of pulls. */
export interface RequestReports {
  start(request: Pick<StartedRequest, 'method' | 'url' | 'userAgent'>): StartedRequest;
  /** @param socket that the answer was written to */
  end(request: StartedRequest, end: RequestEnd, socket: Socket): void;
}

/** Characters of a client's `User-Agent` that are logged. */
const MAX_USER_AGENT_LENGTH = 256;

export function createRequestReports({clock, events}: {clock: Clock; events: Events}): RequestReports {
  const sentBytes = createSentBytes();
  return {
    start({method, url, userAgent}) {
      const id = randomUUID();
      events.emit('request.start', {id, method, url});
      const shown = userAgent?.slice(0, MAX_USER_AGENT_LENGTH) || undefined;
      return {id, method, url, userAgent: shown, began: clock.monotonic()};
    },
    end({id, method, url, userAgent, began}, end, socket) {
      const ms = clock.monotonic() - began;
      events.emit('request.end', {id, method, url, userAgent, ms, bytes: sentBytes(socket), ...end});
    },
  };
}
