import type {Clock} from '../clock.ts';
import type {Authenticator} from '../identity/authenticator.ts';
import {areCurrent} from '../registry/generations.ts';
import type {ServedAgain} from '../registry/repeat.ts';
import {holderOf, type Limits} from './limits.ts';
import type {ReportedAnswer} from './prepared-reports.ts';
import type {RequestReports, StartedRequest} from './request-reports.ts';

/** A request that may be given a prepared answer whose body lies in a file. Plain data, as is the end of its answer. */
export interface FileRequest {
  readonly request: Pick<StartedRequest, 'method' | 'url' | 'userAgent'>;
  readonly answer: ReportedAnswer;
  readonly client: string | undefined;
}

/** How an answer has ended. */
export interface FileRunEnd {
  /** That were sent, with the head. */
  readonly bytes: number;
  readonly isWhole: boolean;
  /** What interrupted it, in a sentence; undefined where its client left. */
  readonly reason: string | undefined;
}

/** A request whose answer from a file is being given. */
export interface FileRun {
  /** The answer's `X-Request-Id`. */
  readonly id: string;
  /** To be called once. */
  end(end: FileRunEnd): void;
}

/** Counts the answers from files against the limits while they are given, and reports each as the ordinary way does. */
export interface FileRuns {
  /** @returns undefined where the ordinary way has to answer: something has changed, or the limits allow no more */
  begin(request: FileRequest): FileRun | undefined;
}

export interface FileRunsParts {
  /** Those of `Generations`. */
  slots: Int32Array;
  limits: Pick<Limits, 'slot' | 'admits'>;
  reports: Pick<RequestReports, 'start' | 'endWith'>;
  authenticator: Pick<Authenticator, 'used'>;
  servedAgain: ServedAgain;
  clock: Pick<Clock, 'now'>;
}

export const createFileRuns = ({
  slots,
  limits,
  reports,
  authenticator,
  servedAgain,
  clock,
}: FileRunsParts): FileRuns => ({
  begin({request, answer, client}) {
    const {kind, status, caller, action, registry, repository, digest, cache, repeat, login} = answer;
    const holder = holderOf({names: [caller]}, client);
    if (!areCurrent(slots, repeat.generations) || !limits.admits(kind, holder)) return undefined;
    const slot = limits.slot(request.method);
    slot.take(kind, holder);
    const started = reports.start(request);
    authenticator.used(login, clock.now());
    // From its start on, it is not evicted as something that nobody pulls.
    if (repeat.served) servedAgain.count(repeat.served);
    if (repeat.served) servedAgain.report(repeat.served);
    return {
      id: started.id,
      end({bytes, isWhole, reason}) {
        slot.free();
        const outcome = reason !== undefined ? 'failed' : isWhole ? answer.outcome : 'aborted';
        const facts = {kind, status, caller, action, registry, repository, digest, cache, client};
        reports.endWith(started, {...facts, outcome, reason, received: 0}, bytes);
      },
    };
  },
});
