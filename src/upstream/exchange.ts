import type {Clock} from '../clock.ts';
import type {UpstreamConfig} from '../config.ts';
import type {Events} from '../events.ts';
import type {Auth, Permission} from './auth/auth.ts';
import {type Demand, Interrupted, UpstreamFailure} from './port.ts';
import {discard, SLOWEST} from './transport/body.ts';
import {type Budget, startBudget, waitFor} from './transport/budget.ts';
import {createCircuits} from './transport/circuits.ts';
import {type Explanation, explanationOf} from './transport/explanation.ts';
import {HtmlAnswer, refuseHtml} from './transport/reply.ts';
import {createLimit, type Limit, type Slot, slotFor, TooManyUnwanted} from './transport/limit.ts';
import {parseRetryAfter} from './transport/pacing.ts';
import {parseQuota, type Quota} from './transport/quota.ts';
import type {RateGates} from './transport/rate-limits.ts';
import {follow} from './transport/redirect.ts';
import type {RedirectNetwork} from './transport/redirect-hosts.ts';
import {
  header,
  type Reply,
  type RequestBody,
  type RequestOptions,
  requireIdentity,
  type Send,
  whereFrom,
} from './transport/request.ts';
import {persist} from './transport/retry.ts';
import type {SendStream, StreamedBody, StreamRequest} from './transport/send-stream.ts';
import type {Target} from './transport/target.ts';

export interface Question extends Target {
  method: RequestOptions['method'];
  headers: Record<string, string>;
  body?: RequestBody;
  /** Bytes that can be sent but once, instead of a body: no redirect is followed with them. */
  stream?: StreamedBody;
  /** Which limit counts it, until its body ends: a body that is read at a client's pace is one of `streams`. */
  slot: 'heads' | 'manifests' | 'bodies' | 'streams' | 'uploads';
  /** Of a download: while nobody wants it, it makes way for others of its slot. */
  demand?: Demand | undefined;
  /** Statuses besides 2xx that are an answer to this question. */
  answers: readonly number[];
  /** What fails is not sent again: a part of it may have been taken. */
  attempts?: 'one';
  /** What it needs to be allowed, where its method does not tell. */
  permission?: Pick<Permission, 'from' | 'ownScope'> & Partial<Pick<Permission, 'actions'>>;
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
  sendStream: SendStream;
  auth: Auth;
  gates: RateGates;
  /** Which hosts other than the upstream may be asked, and how. */
  networkOf: RedirectNetwork;
  /** Are there credentials to ask with? */
  hasCredentials: boolean;
  clock: Clock;
  events: Events;
  /** This server's entry in `Via`. */
  via: string;
  /** The end point that every registry has (distribution-spec, end-1). */
  base: URL;
}

/** Statuses by which an upstream refuses what it was asked; the others of 4xx concern who asks, and how often. */
export const REFUSALS: readonly number[] = Array.from({length: 100}, (_, index) => 400 + index).filter(
  (status) => ![401, 403, 429].includes(status),
);

/** What a status says that is no answer to the question. */
function failureOf(reply: Reply, host: string, now: number): UpstreamFailure {
  const {status, headers} = reply;
  const where = whereFrom(reply, host);
  const retryAfter = parseRetryAfter(header(headers, 'retry-after'), now);
  const options = retryAfter === undefined ? {status} : {status, retryAfter};
  if (status === 401 || status === 403)
    return new UpstreamFailure('denied', host, `denies access (${status})${where}`, {status});
  if (status === 508) {
    return new UpstreamFailure(
      'loop',
      host,
      `saw its own request come back (508)${where}: upstream.url leads to this proxy`,
    );
  }
  return new UpstreamFailure('status', host, `answered ${status}${where}`, options);
}

/** A rate limit as the upstream explains it, and what to do about it where nobody has logged in. */
function limitReason({text}: Explanation, hasCredentials: boolean): string {
  const hint = hasCredentials ? '' : '; set upstream.credentials: accounts have a limit of their own';
  return `limits our rate (429${text === '' ? '' : `: ${text}`})${hint}`;
}

/** What sets each limit. */
const ALLOWANCE: Record<Question['slot'], string> = {
  heads: 'upstream.concurrency.heads allows',
  manifests: 'upstream.concurrency.manifests allows',
  bodies: 'upstream.concurrency.bodies allows',
  streams: 'upstream.concurrency.bodies allows for what goes straight to clients (half as many)',
  uploads: 'upstream.concurrency.bodies allows',
};

/** As distribution's registry asks for them, by method. */
const ACTIONS = {
  GET: 'pull',
  HEAD: 'pull',
  POST: 'pull,push',
  PATCH: 'pull,push',
  PUT: 'pull,push',
  DELETE: 'pull,push,delete',
} as const;

const permissionOf = ({method, repository, caller, permission}: Question): Permission => ({
  repository,
  caller,
  actions: ACTIONS[method],
  ...permission,
});

export function createExchange(options: UpstreamConfig, deps: ExchangeDeps): Exchange {
  const {upstream, send, sendStream, auth, gates, networkOf, hasCredentials, clock, events, via, base} = deps;
  const {host} = upstream;
  const limits: Record<Question['slot'], Limit> = {
    heads: createLimit(options.concurrency.heads),
    manifests: createLimit(options.concurrency.manifests),
    bodies: createLimit(options.concurrency.bodies),
    // Fewer, and of their own: clients that do not read keep nothing waiting but each other.
    streams: createLimit(Math.max(1, Math.floor(options.concurrency.bodies / 2))),
    // As many again: neither pulls nor pushes wait for the other, and one upload never needs a second slot.
    uploads: createLimit(options.concurrency.bodies),
  };
  let quota: Quota | undefined;

  /** The end point that concerns no repository, asked once; what it says does not matter. */
  const probe = async (): Promise<Reply> => {
    const budget = startBudget(clock, options.timeouts.headers);
    try {
      const reply = await send({method: 'GET', url: base, headers: {via: `1.1 ${via}`}}, budget.signal);
      discard(reply.body);
      return reply;
    } catch (error) {
      throw explain(error, budget, 'sent no response headers');
    } finally {
      budget.end();
    }
  };
  const circuits = createCircuits(options.breaker, {host, probe, clock, events});

  const interrupted = (): Interrupted =>
    new Interrupted(`${host}: the connection was needed for a download that somebody waits for`);
  const crowded = ({slot}: Question): UpstreamFailure => {
    const reason = `all connections that ${ALLOWANCE[slot]} are in use, and as many downloads that nobody waits for wait already`;
    return new UpstreamFailure('timeout', host, reason);
  };

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

  const isOurs = (url: URL): boolean => url.origin === upstream.origin;
  const sendSlowly = async (request: StreamRequest, budget: Budget): Promise<Reply> => {
    // A client may take its time: from here on the limits of the sending hold.
    budget.end();
    const reply = await sendStream(request);
    noteQuota(reply);
    return reply;
  };

  const answer = (question: Question, budget: Budget): Promise<Reply> => {
    const {method, url, caller, body, stream} = question;
    const size = body?.size ?? stream?.length;
    const length: Record<string, string> = size === undefined ? {} : {'content-length': String(size)};
    const headers = {...question.headers, ...length, via: [...caller.via, `1.1 ${via}`].join(', ')};
    const attempt = async (authorization: string | undefined): Promise<Reply> => {
      // A further page of a list may lie on the host that the first page redirected to; so may an upload.
      const shown = authorization !== undefined && isOurs(url) ? {authorization} : {};
      const network = isOurs(url) ? 'any' : await waitFor(networkOf(url), budget.signal);
      const request = {method, url, network, headers: {...headers, ...shown}};
      if (stream) return sendSlowly({...request, stream}, budget);
      return follow(sendNoting, body ? {...request, body} : request, budget.signal, networkOf);
    };
    const permission = permissionOf(question);
    if (stream) return isOurs(url) ? auth.sendOnce(attempt, permission, budget.signal) : attempt(undefined);
    const send = () => auth.send(attempt, permission, budget.signal);
    return question.attempts === 'one' ? send() : persist(send, budget, clock);
  };

  const limited = async (reply: Reply, budget: Budget): Promise<UpstreamFailure> => {
    const close = () => reply.body.close();
    budget.signal.addEventListener('abort', close, {once: true});
    const reason = limitReason(await explanationOf(reply, host), hasCredentials);
    const retryAfter = parseRetryAfter(header(reply.headers, 'retry-after'), clock.now());
    return gates.limited({host: reply.url.host, reason: `${reason}${whereFrom(reply, host)}`, retryAfter});
  };

  const judge = async (reply: Reply, {method, answers}: Question, budget: Budget): Promise<Reply> => {
    const ok = reply.status >= 200 && reply.status < 300;
    if (!ok && answers.includes(reply.status)) return reply;
    if (reply.status === 429) throw await limited(reply, budget);
    if (!ok) {
      discard(reply.body);
      throw failureOf(reply, host, clock.now());
    }
    try {
      requireIdentity(reply);
      refuseHtml(reply, method, host);
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

  const throughCircuits = async (question: Question, budget: Budget): Promise<Reply> => {
    const reply = await circuits.run(question.repository, () =>
      answer(question, budget).catch((error: unknown) => {
        throw explain(error, budget, 'sent no response headers');
      }),
    );
    return judge(reply, question, budget);
  };

  /**
   * Before bytes that cannot be sent again: learns what the upstream wants to see, and that it is there. An upload,
   * which may take long, is never the one request that a half-open circuit lets through.
   */
  const prepare = async (question: Question): Promise<void> => {
    const {repository, caller, ...needed} = permissionOf(question);
    if (circuits.steady(repository) && auth.knows({repository, caller, ...needed})) return;
    const permission = {...needed, ownScope: true} as const;
    const target = {url: base, repository, caller, permission};
    const probe = {...target, method: 'GET', headers: {}, slot: 'heads', answers: REFUSALS} as const;
    const reply = await ask(probe).catch((error: unknown) => {
      // What it says is not looked at: Quay answers `true` as text/html.
      if (error instanceof HtmlAnswer) return undefined;
      throw error;
    });
    if (reply) discard(reply.body);
  };

  const ask = async (question: Question): Promise<Reply> => {
    gates.check(question.url.host);
    const probing = circuits.probing();
    if (probing) await probing;
    circuits.check(question.repository);
    const steady = circuits.steady(question.repository);
    if (question.stream && (isOurs(question.url) || !steady)) await prepare(question);
    const sending = (question.body?.size ?? 0) / SLOWEST;
    // Uploads wait longer for a slot; and a storage behind the upstream has to take what they end with.
    const patience = question.slot === 'uploads' ? options.timeouts.idle : 0;
    const budget = startBudget(clock, options.timeouts.headers + patience + sending);
    const stopping = question.demand?.stopping;
    if (stopping?.aborted) budget.spend();
    stopping?.addEventListener('abort', budget.spend, {once: true});
    let slot: Slot | undefined;
    try {
      slot = await slotFor(limits[question.slot], budget, question.demand);
      const reply = await throughCircuits(question, budget);
      void reply.body.ended.then(slot.release);
      slot.interruptible(() => reply.body.close(interrupted()));
      return reply;
    } catch (error) {
      slot?.release();
      if (error instanceof TooManyUnwanted) throw crowded(question);
      throw explain(error, budget, `all connections that ${ALLOWANCE[question.slot]} were in use`);
    } finally {
      stopping?.removeEventListener('abort', budget.spend);
      budget.end();
    }
  };

  return {ask, quota: () => quota};
}
