import type {Clock} from '../clock.ts';
import type {UpstreamConfig} from '../config.ts';
import type {Events} from '../events.ts';
import type {ApiRequest, Ask} from './api-request.ts';
import {ACTIONS, type Auth, type Permission} from './auth/auth.ts';
import {Interrupted, UpstreamFailure} from './port.ts';
import {discard, MIN_BYTES_PER_MS} from './transport/body.ts';
import {type Budget, startBudget, waitFor} from './transport/budget.ts';
import {type Circuits, createCircuits} from './transport/circuits.ts';
import {
  createLimits,
  type Limit,
  SETTINGS,
  type Slot,
  type SlotKind,
  slotFor,
  TooManyUnwanted,
} from './transport/limit.ts';
import {type LastQuota, parseQuota, type RateGates} from './transport/rate-limits.ts';
import {followRedirects, type RedirectNetwork} from './transport/redirect.ts';
import {
  explanationOf,
  failureOf,
  REFUSALS,
  type Reply,
  requireRegistryAnswer,
  retryAfterOf,
  whereFrom,
} from './transport/reply.ts';
import type {RequestOptions, Send} from './transport/request.ts';
import {Attempts} from './transport/retry.ts';
import type {SendStream, StreamRequest} from './transport/send-stream.ts';

export interface AskDeps {
  upstream: URL;
  send: Send;
  sendStream: SendStream;
  auth: Auth;
  gates: RateGates;
  quota: LastQuota;
  /** Which hosts other than the upstream may be used, and by which network. */
  networkOf: RedirectNetwork;
  hasCredentials: boolean;
  clock: Clock;
  events: Events;
  /** This server's entry in `Via`. */
  via: string;
  /** The `/v2/` endpoint, which every registry has (distribution-spec, end-1). */
  base: URL;
}

const permissionOf = ({method, repository, caller, permission}: ApiRequest): Permission => ({
  repository,
  caller,
  actions: ACTIONS[method],
  ...permission,
});

export function createAsk(options: UpstreamConfig, deps: AskDeps): Ask {
  const requests = new ApiRequests(options, deps);
  return <T>(request: ApiRequest, read?: (reply: Reply) => Promise<T>) =>
    read ? requests.ask(request, read) : requests.ask(request, async (reply) => reply as T);
}

/** One attempt of a call, until the response's headers. */
interface Call {
  request: ApiRequest;
  budget: Budget;
  attempts: Attempts;
}

class ApiRequests {
  readonly #timeouts: UpstreamConfig['timeouts'];
  readonly #deps: AskDeps;
  readonly #host: string;
  readonly #limits: Record<SlotKind, Limit>;
  readonly #circuits: Circuits;

  constructor(options: UpstreamConfig, deps: AskDeps) {
    const {clock, events, upstream} = deps;
    this.#timeouts = options.timeouts;
    this.#deps = deps;
    this.#host = upstream.host;
    this.#limits = createLimits(options.concurrency);
    const probe = () => this.#probe();
    this.#circuits = createCircuits(options.breaker, {host: upstream.host, probe, clock, events});
  }

  async ask<T>(request: ApiRequest, read: (reply: Reply) => Promise<T>): Promise<T> {
    const {clock} = this.#deps;
    const attempts = new Attempts(request.method, clock);
    let left = this.#budgetFor(request);
    for (;;) {
      const admission = this.#admit(request);
      if (admission) await admission;
      const budget = startBudget(clock, left);
      try {
        return await read(await this.#askWithin({request, budget, attempts}));
      } catch (error) {
        if (request.attempts === 'one') throw error;
        await attempts.again(error, budget, request.demand?.stopping);
        left = budget.left();
      }
    }
  }

  /**
   * @returns what has to be awaited before the request is sent, if anything
   * @throws UpstreamFailure when the upstream is not to be asked now
   */
  #admit(request: ApiRequest): Promise<void> | undefined {
    this.#deps.gates.check(request.url.host);
    const probing = this.#circuits.probing();
    return probing ? probing.then(() => this.#admitToCircuits(request)) : this.#admitToCircuits(request);
  }

  #admitToCircuits(request: ApiRequest): Promise<void> | undefined {
    this.#circuits.check(request.repository);
    const isClosed = this.#circuits.isClosed(request.repository);
    return request.stream && (this.#isOurs(request.url) || !isClosed) ? this.#prepare(request) : undefined;
  }

  async #askWithin(call: Call): Promise<Reply> {
    const {request, budget} = call;
    const stopping = request.demand?.stopping;
    if (stopping?.aborted) budget.spend();
    stopping?.addEventListener('abort', budget.spend, {once: true});
    try {
      return await this.#askInSlot(call);
    } finally {
      stopping?.removeEventListener('abort', budget.spend);
      budget.end();
    }
  }

  /** Milliseconds until the response's headers must have arrived. */
  #budgetFor({body, slot}: ApiRequest): number {
    const {headers, idle} = this.#timeouts;
    // Uploads wait longer for a slot, and the upstream's storage needs time for their last request.
    const extra = slot === 'uploads' ? idle : 0;
    return headers + extra + (body?.size ?? 0) / MIN_BYTES_PER_MS;
  }

  async #askInSlot(call: Call): Promise<Reply> {
    const {request, budget} = call;
    let slot: Slot | undefined;
    try {
      slot = await slotFor(this.#limits[request.slot], budget, request.demand);
      const reply = await this.#askThroughCircuits(call);
      void reply.body.ended.then(slot.release);
      slot.interruptible(() => reply.body.close(this.#interrupted()));
      return reply;
    } catch (error) {
      slot?.release();
      const inUse = `all connections allowed by ${SETTINGS[request.slot]} were in use`;
      if (error instanceof TooManyUnwanted) {
        const reason = `${inUse}, and as many downloads without a client were waiting already`;
        throw new UpstreamFailure('timeout', this.#host, reason);
      }
      throw this.#timeoutOr(error, budget, inUse);
    }
  }

  async #askThroughCircuits(call: Call): Promise<Reply> {
    const {request, budget} = call;
    const reply = await this.#circuits.run(request, () =>
      this.#sendAuthorized(call).catch((error: unknown) => {
        throw this.#timeoutOr(error, budget, 'sent no response headers');
      }),
    );
    return this.#judge(reply, request, budget);
  }

  /** Once the budget is spent, an error that is not an UpstreamFailure is the timeout. */
  #timeoutOr(error: unknown, budget: Budget, reason: string): unknown {
    return budget.signal.aborted && !(error instanceof UpstreamFailure)
      ? new UpstreamFailure('timeout', this.#host, `${reason} for ${budget.total} ms`)
      : error;
  }

  #interrupted(): Interrupted {
    return new Interrupted(`${this.#host}: a download that a client waits for needed the connection`);
  }

  #isOurs(url: URL): boolean {
    return url.origin === this.#deps.upstream.origin;
  }

  #sendAuthorized({request, budget, attempts}: Call): Promise<Reply> {
    const {auth} = this.#deps;
    const permission = permissionOf(request);
    const attempt = (authorization: string | undefined) => this.#attempt(request, authorization, budget);
    if (request.stream)
      return this.#isOurs(request.url)
        ? auth.sendOnce(attempt, permission, budget.signal)
        : attempt(undefined);
    const send = () => auth.send(attempt, permission, budget.signal);
    return request.attempts === 'one' ? send() : attempts.untilReply(send, budget);
  }

  async #attempt(request: ApiRequest, authorization: string | undefined, budget: Budget): Promise<Reply> {
    const {networkOf, via} = this.#deps;
    const {method, url, caller, body, stream} = request;
    const size = body?.size ?? stream?.length;
    const headers = {
      ...request.headers,
      ...(size === undefined ? {} : {'content-length': String(size)}),
      via: [...caller.via, `1.1 ${via}`].join(', '),
      // An upload, or a further page of a list, may be on another host, to which an earlier request was redirected.
      ...(authorization !== undefined && this.#isOurs(url) ? {authorization} : {}),
    };
    const network = this.#isOurs(url) ? 'any' : await waitFor(networkOf(url), budget.signal);
    const outgoing = {method, url, network, headers};
    if (stream) return this.#sendStream({...outgoing, stream}, budget);
    const send: Send = (options, signal) => this.#send(options, signal);
    return followRedirects(send, body ? {...outgoing, body} : outgoing, budget.signal, networkOf);
  }

  async #send(options: RequestOptions, signal: AbortSignal): Promise<Reply> {
    const reply = await this.#deps.send(options, signal);
    this.#reportQuota(reply);
    return reply;
  }

  async #sendStream(request: StreamRequest, budget: Budget): Promise<Reply> {
    // The client decides how long this takes; from here on SendStream's own limits apply.
    budget.end();
    const reply = await this.#deps.sendStream(request);
    this.#reportQuota(reply);
    return reply;
  }

  #reportQuota({url, headers}: Reply): void {
    const quota = url.host === this.#host ? parseQuota(headers) : undefined;
    if (!quota) return;
    this.#deps.quota.reported(quota);
    this.#deps.events.emit('upstream.quota', {host: this.#host, ...quota});
  }

  /** Returns a reply that answers the request, and throws the failure that any other one means. */
  async #judge(reply: Reply, {method, expected, content}: ApiRequest, budget: Budget): Promise<Reply> {
    const isOk = reply.status >= 200 && reply.status < 300;
    if (!isOk && expected.includes(reply.status)) return reply;
    if (reply.status === 429) throw await this.#rateLimited(reply, budget);
    if (!isOk) {
      discard(reply.body);
      throw failureOf(reply, this.#host, this.#deps.clock.now());
    }
    if (content !== 'any') requireRegistryAnswer(reply, method, this.#host);
    return reply;
  }

  async #rateLimited(reply: Reply, budget: Budget): Promise<UpstreamFailure> {
    const {gates, hasCredentials, clock} = this.#deps;
    budget.signal.addEventListener('abort', () => reply.body.close(), {once: true});
    const {message} = await explanationOf(reply, this.#host);
    const status = `429${message === '' ? '' : `: ${message}`}`;
    const hint = hasCredentials ? '' : '; set upstream.credentials: logged-in accounts have their own limit';
    const reason = `limits our rate (${status})${hint}${whereFrom(reply, this.#host)}`;
    return gates.limited({host: reply.url.host, reason, retryAfter: retryAfterOf(reply, clock.now())});
  }

  /** Sends the request by which the circuits learn whether the host is up. Its reply's content does not matter. */
  async #probe(): Promise<Reply> {
    const {base, via, send, clock} = this.#deps;
    const budget = startBudget(clock, this.#timeouts.headers);
    try {
      const reply = await send({method: 'GET', url: base, headers: {via: `1.1 ${via}`}}, budget.signal);
      discard(reply.body);
      return reply;
    } catch (error) {
      throw this.#timeoutOr(error, budget, 'sent no response headers');
    } finally {
      budget.end();
    }
  }

  /**
   * Before a body that cannot be sent again: learns which authorization the upstream requires, and that it is up. So an
   * upload, which may take long, is never the probe of a half-open circuit.
   */
  async #prepare(request: ApiRequest): Promise<void> {
    const permission = permissionOf(request);
    const {repository, caller, ...needed} = permission;
    if (this.#circuits.isClosed(repository) && this.#deps.auth.knows(permission)) return;
    const question: ApiRequest = {
      url: this.#deps.base,
      repository,
      caller,
      permission: {...needed, ownScope: true},
      method: 'GET',
      headers: {},
      slot: 'heads',
      expected: REFUSALS,
      // Quay answers `true` as text/html.
      content: 'any',
    };
    await this.ask(question, async ({body}) => discard(body));
  }
}
