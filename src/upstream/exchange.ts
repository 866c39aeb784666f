import type {Clock} from '../clock.ts';
import type {UpstreamConfig} from '../config.ts';
import type {Events} from '../events.ts';
import type {Auth} from './auth.ts';
import {discard} from './body.ts';
import {type Breaker, createBreaker, type Finding} from './breaker.ts';
import {type Budget, startBudget} from './budget.ts';
import {createLimit, type Limit} from './limit.ts';
import {parseRetryAfter} from './pacing.ts';
import {UpstreamFailure} from './port.ts';
import {parseQuota, type Quota} from './quota.ts';
import {follow} from './redirect.ts';
import {
  header,
  type Reply,
  type RequestBody,
  type RequestOptions,
  requireIdentity,
  type Send,
} from './request.ts';
import {persist} from './retry.ts';
import type {Target} from './target.ts';

export interface Question extends Target {
  method: RequestOptions['method'];
  headers: Record<string, string>;
  body?: RequestBody;
  /** Which limit counts it: `bodies` are held until their body ends. */
  slot: 'heads' | 'bodies';
  /** Statuses besides 2xx that are an answer to this question. */
  answers: readonly number[];
  /** What fails is not sent again: a part of it may have been taken. */
  attempts?: 'one';
}

export interface Exchange {
  /**
   * Asks the upstream, with everything that asking needs: slot, breaker, tokens, redirects, retries, one budget.
   * @returns the head of a 2xx or of one of `answers`. Read, discard or close its body.
   * @throws UpstreamFailure
   */
  ask(question: Question): Promise<Reply>;
  /** The rate limit as last told. */
  quota(): Quota | undefined;
}

export interface ExchangeDeps {
  upstream: URL;
  send: Send;
  auth: Auth;
  clock: Clock;
  events: Events;
  /** This server's entry in `Via`. */
  via: string;
}

/** Failures without an answer that show an upstream, or the token service it depends on, in trouble. */
const FAILING = new Set<string>(['unreachable', 'timeout', 'token']);
/** Server errors that are answers: not implemented, and a loop. */
const SOUND = new Set([501, 508]);
/** Bytes per millisecond at which a body is sent at the least: its time comes on top of that for the headers. */
const SLOWEST_SENDING = 64;

/** What a status says that is no answer to the question. */
function failureOf({status, headers, url}: Reply, host: string, now: number): UpstreamFailure {
  const where = url.host === host ? '' : ` (from ${url.host}, to which it redirects)`;
  const retryAfter = parseRetryAfter(header(headers, 'retry-after'), now);
  const options = retryAfter === undefined ? {} : {retryAfter};
  if (status === 429) return new UpstreamFailure('throttled', host, `limits our rate (429)${where}`, options);
  if (status === 401 || status === 403)
    return new UpstreamFailure('denied', host, `denies access (${status})${where}`);
  if (status === 508) {
    return new UpstreamFailure(
      'loop',
      host,
      `saw its own request come back (508)${where}: upstream.url leads to this proxy`,
    );
  }
  return new UpstreamFailure('status', host, `answered ${status}${where}`, options);
}

function findingOf(error: unknown): Finding {
  // With refused credentials nothing may have been asked at all.
  if (!(error instanceof UpstreamFailure) || error.kind === 'credentials') return 'unknown';
  return FAILING.has(error.kind) ? 'failing' : 'reachable';
}

export function createExchange(options: UpstreamConfig, deps: ExchangeDeps): Exchange {
  const {upstream, send, auth, clock, events, via} = deps;
  const {host} = upstream;
  const limits: Record<Question['slot'], Limit> = {
    heads: createLimit(options.concurrency.heads),
    bodies: createLimit(options.concurrency.bodies),
  };
  const breaker: Breaker = createBreaker(options.breaker, clock, (state) =>
    events.emit('upstream.circuit', {host, state}),
  );
  let quota: Quota | undefined;

  const opened = (retryAfter: number): UpstreamFailure =>
    new UpstreamFailure(
      'open',
      host,
      `failed ${options.breaker.failures} times in a row and is not asked at the moment`,
      {retryAfter},
    );

  const noteQuota = (reply: Reply): void => {
    const seen = reply.url.host === host ? parseQuota(reply.headers) : undefined;
    if (!seen) return;
    quota = seen;
    events.emit('upstream.quota', {host, ...seen});
  };
  const sendNoting: Send = async (request, signal) => {
    const reply = await send(request, signal);
    noteQuota(reply);
    return reply;
  };

  const answer = (question: Question, budget: Budget): Promise<Reply> => {
    const {method, url, repository, caller, body} = question;
    const length: Record<string, string> = body ? {'content-length': String(body.size)} : {};
    const headers = {...question.headers, ...length, via: [...caller.via, `1.1 ${via}`].join(', ')};
    const attempt = (authorization: string | undefined): Promise<Reply> => {
      // A further page of a list may lie on the host that the first page redirected to.
      const shown = authorization !== undefined && url.origin === upstream.origin ? {authorization} : {};
      const request = {method, url, headers: {...headers, ...shown}, ...(body ? {body} : {})};
      return follow(sendNoting, request, budget.signal);
    };
    const actions = method === 'GET' || method === 'HEAD' ? 'pull' : 'pull,push';
    const send = () => auth.send(attempt, {repository, caller, actions}, budget.signal);
    return question.attempts === 'one' ? send() : persist(send, budget, clock);
  };

  const judge = (reply: Reply, answers: readonly number[]): Reply => {
    const ok = reply.status >= 200 && reply.status < 300;
    if (!ok && answers.includes(reply.status)) return reply;
    if (!ok) {
      discard(reply.body);
      throw failureOf(reply, host, clock.now());
    }
    try {
      requireIdentity(reply);
    } catch (error) {
      reply.body.close();
      throw error;
    }
    return reply;
  };

  /** What callers see: whatever is no failure of its own when the budget is spent is the time-out. */
  const explain = (error: unknown, budget: Budget, reason: string): unknown =>
    budget.signal.aborted && !(error instanceof UpstreamFailure)
      ? new UpstreamFailure('timeout', host, `${reason} for ${budget.total} ms`)
      : error;

  const throughBreaker = async (question: Question, budget: Budget): Promise<Reply> => {
    const report = breaker.enter();
    if (!report) throw opened(breaker.closedFor() ?? 0);
    const reply = await answer(question, budget).catch((error: unknown) => {
      const explained = explain(error, budget, 'sent no response headers');
      report(findingOf(explained));
      throw explained;
    });
    report(reply.status >= 500 && !SOUND.has(reply.status) ? 'failing' : 'reachable');
    return judge(reply, question.answers);
  };

  const ask = async (question: Question): Promise<Reply> => {
    const wait = breaker.closedFor();
    if (wait !== undefined) throw opened(wait);
    const sending = (question.body?.size ?? 0) / SLOWEST_SENDING;
    const budget = startBudget(clock, options.timeouts.headers + sending);
    let release = (): void => undefined;
    try {
      release = await limits[question.slot].acquire(budget.signal);
      const reply = await throughBreaker(question, budget);
      void reply.body.ended.then(release);
      return reply;
    } catch (error) {
      release();
      throw explain(
        error,
        budget,
        `all connections that upstream.concurrency.${question.slot} allows were in use`,
      );
    } finally {
      budget.end();
    }
  };

  return {ask, quota: () => quota};
}
