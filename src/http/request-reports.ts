import type {Socket} from 'node:net';
import type {Clock} from '../clock.ts';
import type {CountedRequests, EventMap, Events} from '../events.ts';
import {createRequestId} from './request-id.ts';
import type {SentBytes} from './sent-bytes.ts';

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

type EndedRequest = EventMap['request.end'][0];

/** What is known of a request when it has ended, beside what was known when it began. */
export type RequestEnd = Omit<EndedRequest, keyof StartedRequest | 'ms' | 'bytes'>;

/** Reports every request, however it is answered: for the log, the audit, the metrics and the record of pulls. */
export interface RequestReports {
  /** How many have begun and not ended. */
  readonly inFlight: number;
  start(request: Pick<StartedRequest, 'method' | 'url' | 'userAgent'>): StartedRequest;
  /** @param socket that the answer was written to */
  end(request: StartedRequest, end: RequestEnd, socket: Socket): void;
  /** @param bytes that were sent of the answer, with its head */
  endWith(request: StartedRequest, end: RequestEnd, bytes: number): void;
  /** Reports one that ended without `start`. */
  ended(request: EndedRequest): void;
}

export interface RequestReportsParts {
  sentBytes: SentBytes;
  clock: Clock;
  events: Events;
}

/** Characters of a client's `User-Agent` that are logged. */
const MAX_USER_AGENT_LENGTH = 256;

export const createRequestReports = (parts: RequestReportsParts): RequestReports => new EmittedReports(parts);

/** @param began on the monotonic clock */
export const startedRequest = (
  {method, url, userAgent}: Pick<StartedRequest, 'method' | 'url' | 'userAgent'>,
  began: number,
): StartedRequest => ({
  id: createRequestId(),
  method,
  url,
  userAgent: userAgent?.slice(0, MAX_USER_AGENT_LENGTH) || undefined,
  began,
});

class EmittedReports implements RequestReports {
  inFlight = 0;
  readonly #sentBytes: SentBytes;
  readonly #clock: Clock;
  readonly #events: Events;

  constructor({sentBytes, clock, events}: RequestReportsParts) {
    this.#sentBytes = sentBytes;
    this.#clock = clock;
    this.#events = events;
  }

  start(request: Pick<StartedRequest, 'method' | 'url' | 'userAgent'>): StartedRequest {
    const started = startedRequest(request, this.#clock.monotonic());
    const {id, method, url} = started;
    this.inFlight += 1;
    this.#events.emit('request.start', {id, method, url});
    return started;
  }

  end(request: StartedRequest, end: RequestEnd, socket: Socket): void {
    this.endWith(request, end, this.#sentBytes(socket));
  }

  endWith({id, method, url, userAgent, began}: StartedRequest, end: RequestEnd, bytes: number): void {
    this.inFlight -= 1;
    const ms = this.#clock.monotonic() - began;
    this.ended({id, method, url, userAgent, ms, bytes, ...end});
  }

  ended(request: EndedRequest): void {
    const {outcome} = request;
    this.#events.emit('request.end', request);
    if (outcome === 'failed' || outcome === 'stale') this.#events.emit('request.trouble', request);
    this.#events.emit('requests.counted', [countedOne(request, this.#clock.now())]);
  }
}

/** @param at when it ended: milliseconds since the epoch */
const countedOne = (request: EndedRequest, at: number): CountedRequests => {
  const {method, kind, status, outcome, caller, registry, repository, digest} = request;
  const {received, bytes, client, ms} = request;
  return {
    ...{method, kind, status, outcome, caller, registry, repository, digest},
    ...{count: 1, received, bytes, durations: new Map([[ms, 1]]), client, first: at, last: at},
    login: undefined,
    isServedHere: false,
  };
};
