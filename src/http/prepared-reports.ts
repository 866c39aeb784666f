import type {Socket} from 'node:net';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {Authenticator} from '../identity/authenticator.ts';
import type {ServedAgain} from '../registry/repeat.ts';
import type {PreparedAnswer} from './answer-table.ts';
import type {KnownRequest} from './known-request.ts';
import {type RequestReports, type StartedRequest, startedRequest} from './request-reports.ts';
import type {SentBytes} from './sent-bytes.ts';

/** The part of a prepared answer that is reported whenever it is given. Plain data, like the next two types. */
export type ReportedAnswer = Omit<PreparedAnswer, 'fields' | 'body' | 'file'>;

/** A request that got a prepared answer. */
export interface GivenAnswer {
  readonly answer: ReportedAnswer;
  readonly request: StartedRequest;
  readonly ms: number;
  readonly bytes: number;
  readonly client: string | undefined;
  /** False where the client left before it had all of it. */
  readonly isWhole: boolean;
}

/** Equal requests that got the same prepared answer, all of it. */
export interface GivenAnswers {
  readonly answer: ReportedAnswer;
  readonly method: string;
  count: number;
  bytes: number;
  /** The number of requests for each duration, in milliseconds. */
  readonly durations: Map<number, number>;
  /** The client of the last one. */
  client: string | undefined;
  /** When the first and the last one ended: milliseconds since the epoch. */
  readonly first: number;
  last: number;
}

/** Counts the prepared answers that are given, for whoever reports them. */
export interface PreparedReports {
  /** How many requests have begun and not ended. */
  readonly inFlight: number;
  start(request: KnownRequest): StartedRequest;
  /** @param socket that the answer was written to */
  end(request: StartedRequest, answer: PreparedAnswer, peer: AnsweredPeer, isWhole: boolean): void;
  /** What was counted since the last time. */
  take(): readonly GivenAnswers[];
}

interface AnsweredPeer {
  readonly socket: Socket;
  readonly client: string | undefined;
}

export interface PreparedReportsParts {
  sentBytes: SentBytes;
  /** Whether somebody hears of each request. */
  isEachHeard(): boolean;
  /** Takes a request that is not counted with others: each that is heard, and those whose client left. */
  given(one: GivenAnswer): void;
  clock: Clock;
}

export const createPreparedReports = (parts: PreparedReportsParts): PreparedReports =>
  new CountedAnswers(parts);

class CountedAnswers implements PreparedReports {
  inFlight = 0;
  readonly #parts: PreparedReportsParts;
  /** By what is held of an answer without its body, which would not leave the memory with the answer. */
  #counts = new Map<PreparedAnswer['repeat'], GivenAnswers>();

  constructor(parts: PreparedReportsParts) {
    this.#parts = parts;
  }

  start({method, target: url, userAgent}: KnownRequest): StartedRequest {
    this.inFlight += 1;
    return startedRequest({method, url, userAgent}, this.#parts.clock.monotonic());
  }

  end(request: StartedRequest, answer: PreparedAnswer, peer: AnsweredPeer, isWhole: boolean): void {
    const {sentBytes, isEachHeard, given, clock} = this.#parts;
    this.inFlight -= 1;
    const ms = clock.monotonic() - request.began;
    const bytes = sentBytes(peer.socket);
    const {client} = peer;
    const isCounted = isWhole && !isEachHeard() && this.#counts.size < MAX_COUNTED;
    if (isCounted) this.#count(answer, request.method, {ms, bytes, client});
    else given({answer: reportedOf(answer), request, ms, bytes, client, isWhole});
  }

  take(): readonly GivenAnswers[] {
    if (this.#counts.size === 0) return NONE;
    const counts = [...this.#counts.values()];
    this.#counts = new Map();
    return counts;
  }

  #count(
    answer: PreparedAnswer,
    method: string,
    {ms, bytes, client}: Pick<GivenAnswer, 'ms' | 'bytes' | 'client'>,
  ): void {
    const now = this.#parts.clock.now();
    let counts = this.#counts.get(answer.repeat);
    if (counts === undefined) {
      const none = {count: 0, bytes: 0, durations: new Map<number, number>()};
      counts = {answer: reportedOf(answer), method, ...none, client, first: now, last: now};
      this.#counts.set(answer.repeat, counts);
    }
    counts.count += 1;
    counts.bytes += bytes;
    counts.durations.set(ms, (counts.durations.get(ms) ?? 0) + 1);
    counts.client = client;
    counts.last = now;
  }
}

/** Records of one batch; the requests for further answers are reported one by one. */
const MAX_COUNTED = 10_000;

const NONE: readonly GivenAnswers[] = [];

/** The part of a prepared answer that is reported. */
export function reportedOf(answer: PreparedAnswer): ReportedAnswer {
  const {status, caller, kind, action, registry, repository, digest, outcome, cache} = answer;
  const {repeat, login} = answer;
  return {status, caller, kind, action, registry, repository, digest, outcome, cache, repeat, login};
}

/** Reports what was counted as the ordinary way would report each. */
export interface PreparedReplay {
  one(given: GivenAnswer): void;
  all(given: readonly GivenAnswers[]): void;
}

export interface PreparedReplayParts {
  reports: Pick<RequestReports, 'ended'>;
  authenticator: Pick<Authenticator, 'used'>;
  servedAgain: ServedAgain;
  clock: Pick<Clock, 'now'>;
  events: Events;
}

export const createPreparedReplay = (parts: PreparedReplayParts): PreparedReplay => ({
  one({answer, request, ms, bytes, client, isWhole}) {
    const {began: _, ...started} = request;
    const {id, method, url} = request;
    const {status, caller, kind, action, registry, repository, digest, cache} = answer;
    parts.events.emit('request.start', {id, method, url});
    parts.authenticator.used(answer.login, parts.clock.now());
    const {served} = answer.repeat;
    if (served) parts.servedAgain.count(served);
    if (served) parts.servedAgain.report(served);
    parts.reports.ended({
      ...started,
      ...{kind, status, caller, action, registry, repository, digest, cache},
      ...{ms, bytes, client, received: 0, reason: undefined},
      outcome: isWhole ? answer.outcome : 'aborted',
    });
  },

  all(given) {
    if (given.length === 0) return;
    for (const {answer, last} of given) {
      parts.authenticator.used({...answer.login, method: undefined}, last);
      if (answer.repeat.served) parts.servedAgain.count(answer.repeat.served);
    }
    parts.events.emit('requests.counted', given.map(countedRequests));
  },
});

function countedRequests({answer, ...counts}: GivenAnswers) {
  const {status, caller, kind, registry, repository, digest, outcome, login} = answer;
  return {
    ...counts,
    ...{kind, status, caller, registry, repository, digest, outcome},
    received: 0,
    login: login.method,
    isServedHere: answer.repeat.served !== undefined,
  };
}
