import * as z from 'zod';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {createLru} from '../../lru.ts';
import {SpoiledAnswer, UpstreamFailure} from '../port.ts';
import {collect, discard} from '../transport/body.ts';
import {type Budget, startBudget, waitFor} from '../transport/budget.ts';
import {ConnectionFault} from '../transport/fault.ts';
import type {RateGates} from '../transport/rate-limits.ts';
import {followRedirects, type RedirectNetwork} from '../transport/redirect.ts';
import {type Reply, retryAfterOf, whereFrom} from '../transport/reply.ts';
import type {RequestOptions, Send} from '../transport/request.ts';
import {Attempts} from '../transport/retry.ts';
import type {Credentials} from './credentials.ts';
import {basicAuthorization, type Login, type LoginGate, type Verdict} from './login.ts';

/** Where to obtain a token, and for what: a checked Bearer challenge. */
export interface TokenSource {
  realm: URL;
  service: string | undefined;
  /** Scopes, separated by spaces; empty for a token that only shows who has logged in. */
  scope: string;
}

export interface Token {
  value: string;
  /** Obtained for this request: if the upstream refuses it, another would be refused too. */
  fresh: boolean;
}

export interface Tokens {
  /**
   * Gives a cached token, or obtains one. Concurrent requests for the same token share one exchange.
   * @param refused a token that the upstream has just refused.
   * @param minLife milliseconds for which a cached token must stay valid, or half of its life if that is less.
   * @throws UpstreamFailure `token`, `throttled`, `denied` or `credentials`.
   */
  get(
    source: TokenSource,
    caller: TokenHolder,
    refused: string | undefined,
    signal: AbortSignal,
    minLife?: number,
  ): Promise<Token>;
  /** Drops a token that the upstream refused from the cache, unless it has been replaced. */
  drop(source: TokenSource, caller: TokenHolder, refused: string | undefined): void;
}

/** Whom a token is for. */
type TokenHolder = Pick<Caller, 'key' | 'login'>;

export interface TokensDeps {
  /** The upstream's host, for its failures. */
  host: string;
  send: Send;
  credentials: Credentials;
  gate: LoginGate;
  gates: RateGates;
  /** The network to use for a token service and for where it redirects to. */
  networkOf: RedirectNetwork;
  clock: Clock;
  /** Milliseconds for one exchange, including retries. */
  budget: number;
}

/** The life of a token whose response names none, by the token specification. */
const DEFAULT_LIFE_MS = 60_000;
/** A token is renewed early: by a tenth of its life, and at most by this. */
const MAX_LEAD_MS = 30_000;
const MAX_TOKENS = 10_000;
const MAX_RESPONSE_BYTES = 1024 * 1024;

const text = z.string().regex(/^[\x21-\x7e]+$/);
const tokenResponse = z.object({
  token: text.optional().catch(undefined),
  access_token: text.optional().catch(undefined),
  expires_in: z.number().positive().optional().catch(undefined),
  issued_at: z.string().optional().catch(undefined),
});

/**
 * How long a token may be used, in milliseconds from `now` (distribution, "Token Authentication Specification"):
 * `expires_in` seconds after `issued_at`; either may be missing. An `issued_at` in the future counts as `now`.
 */
export function tokenLife(
  response: {expires_in?: number | undefined; issued_at?: string | undefined},
  now: number,
): number {
  const life = response.expires_in === undefined ? DEFAULT_LIFE_MS : response.expires_in * 1000;
  const issuedAt = Date.parse(response.issued_at ?? '');
  const age = Number.isNaN(issuedAt) ? 0 : Math.max(0, now - issuedAt);
  return Math.max(0, life - age - Math.min(life / 10, MAX_LEAD_MS));
}

function tokenRequest({realm, service, scope}: TokenSource, login: Login | undefined): RequestOptions {
  if (login?.kind === 'identity-token') {
    // distribution, "Token Authentication Specification", OAuth 2: POST with the refresh token.
    const form = {
      grant_type: 'refresh_token',
      client_id: 'backref',
      scope,
      refresh_token: login.token,
      ...(service === undefined ? {} : {service}),
    };
    return {method: 'POST', url: realm, headers: {}, form};
  }
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  for (const one of scope.split(' ')) if (one !== '') url.searchParams.append('scope', one);
  return {method: 'GET', url, headers: login ? {authorization: basicAuthorization(login)} : {}};
}

/** What a token service's reply shows about the credentials. */
function verdictOf({status}: Reply, method: RequestOptions['method']): Verdict {
  if (status === 200) return 'accepted';
  // RFC 6749, section 5.2: 400 invalid_grant means that a refresh token is no longer valid.
  if (status === 401 || (status === 400 && method === 'POST')) return 'refused';
  // ghcr.io answers 403 to a bad password, GitLab to a good one that may not read this repository.
  return status === 403 ? 'forbidden' : 'undecided';
}

const keyOf = ({realm, service, scope}: TokenSource, callerKey: string): string =>
  JSON.stringify([realm.href, service, scope, callerKey]);

export const createTokens = (deps: TokensDeps): Tokens => new TokenCache(deps);

class TokenCache implements Tokens {
  readonly #deps: TokensDeps;
  readonly #cache = createLru<string, {value: string; life: number; until: number}>(MAX_TOKENS);
  readonly #exchanges = new Map<string, Promise<string>>();

  constructor(deps: TokensDeps) {
    this.#deps = deps;
  }

  async get(
    source: TokenSource,
    caller: TokenHolder,
    refused: string | undefined,
    signal: AbortSignal,
    minLife = 0,
  ): Promise<Token> {
    const key = keyOf(source, caller.key);
    const cached = this.#cache.get(key);
    const needed = Math.min(minLife, (cached?.life ?? 0) / 2);
    if (cached && cached.value !== refused && this.#deps.clock.monotonic() + needed < cached.until)
      return {value: cached.value, fresh: false};
    const value = await waitFor(this.#exchangeOnce(source, caller, key), signal).catch((error: unknown) => {
      if (error instanceof UpstreamFailure) throw error;
      throw signal.aborted ? this.#timeout(source) : error;
    });
    return {value, fresh: true};
  }

  drop(source: TokenSource, caller: TokenHolder, refused: string | undefined): void {
    const key = keyOf(source, caller.key);
    if (this.#cache.get(key)?.value === refused) this.#cache.delete(key);
  }

  #exchangeOnce(source: TokenSource, caller: TokenHolder, key: string): Promise<string> {
    const running = this.#exchanges.get(key);
    if (running) return running;
    const exchange = this.#exchange(source, caller, key).finally(() => this.#exchanges.delete(key));
    this.#exchanges.set(key, exchange);
    exchange.catch(() => undefined);
    return exchange;
  }

  async #exchange(source: TokenSource, caller: TokenHolder, key: string): Promise<string> {
    const {credentials, clock} = this.#deps;
    const login = await credentials.read(caller);
    const budget = startBudget(clock, this.#deps.budget);
    try {
      const {value, life} = await this.#obtain(source, login, budget);
      if (login) caller.login?.accept(this.#deps.host);
      this.#cache.set(key, {value, life, until: clock.monotonic() + life});
      return value;
    } catch (error) {
      const isCutOff = error instanceof ConnectionFault || !(error instanceof UpstreamFailure);
      if (budget.signal.aborted && isCutOff) throw this.#timeout(source);
      if (error instanceof ConnectionFault) throw this.#failure(error.message, {cause: error.cause});
      if (error instanceof SpoiledAnswer) throw this.#failure(withoutToken(source), {status: 200});
      throw error;
    } finally {
      budget.end();
    }
  }

  async #obtain(
    source: TokenSource,
    login: Login | undefined,
    budget: Budget,
  ): Promise<{value: string; life: number}> {
    const {networkOf, clock} = this.#deps;
    const network = await waitFor(networkOf(source.realm), budget.signal);
    const options = {...tokenRequest(source, login), network};
    const attempts = new Attempts(options.method, clock);
    for (;;) {
      try {
        return await this.#read(source, await this.#request(options, login, budget, attempts), budget);
      } catch (error) {
        await attempts.again(error, budget, budget.signal);
      }
    }
  }

  async #request(
    options: RequestOptions,
    login: Login | undefined,
    budget: Budget,
    attempts: Attempts,
  ): Promise<Reply> {
    const {send, gate, networkOf} = this.#deps;
    const attempt = () =>
      options.method === 'POST'
        ? send(options, budget.signal)
        : followRedirects(send, options, budget.signal, networkOf);
    if (!login) return attempts.untilReply(attempt, budget);
    return gate.login(
      () => attempts.untilReply(attempt, budget),
      (reply) => {
        const verdict = verdictOf(reply, options.method);
        if (verdict === 'refused' || verdict === 'forbidden') discard(reply.body);
        return verdict;
      },
      budget.signal,
    );
  }

  /** Reads the token; the budget covers the body too. */
  async #read(source: TokenSource, reply: Reply, budget: Budget): Promise<{value: string; life: number}> {
    const {clock} = this.#deps;
    if (reply.status !== 200) {
      discard(reply.body);
      throw this.#failureOf(source, reply);
    }
    const close = () => reply.body.close();
    budget.signal.addEventListener('abort', close, {once: true});
    const bytes = await collect(reply.body, source.realm.host, MAX_RESPONSE_BYTES, 'a token');
    const response = tokenResponse.safeParse(parseJson(bytes));
    const value = response.data?.token ?? response.data?.access_token;
    if (!response.data || value === undefined)
      throw new SpoiledAnswer('token', this.#deps.host, withoutToken(source));
    return {value, life: tokenLife(response.data, clock.now())};
  }

  #failureOf(source: TokenSource, reply: Reply): UpstreamFailure {
    const {host, gates, clock} = this.#deps;
    const {status} = reply;
    const service = source.realm.host;
    if (status === 429) {
      // The gate is that of the host that answered. A realm often has the registry's own host and redirects to another.
      const reason = `its token service ${service} limits our rate (429)${whereFrom(reply, service)}`;
      return gates.limited({host: reply.url.host, reason, retryAfter: retryAfterOf(reply, clock.now())});
    }
    if (status === 401 || status === 403) {
      const reason = `its token service ${service} refuses a token for ${source.scope} (${status})`;
      return new UpstreamFailure('denied', host, reason);
    }
    return this.#failure(`${service} answered ${status}`, {status});
  }

  #timeout(source: TokenSource): UpstreamFailure {
    return this.#failure(`${source.realm.host} did not answer in time`);
  }

  /** @param what continues "its token service …". */
  #failure(what: string, options: {status?: number; cause?: unknown} = {}): UpstreamFailure {
    return new UpstreamFailure('token', this.#deps.host, `its token service ${what}`, options);
  }
}

const withoutToken = ({realm}: TokenSource): string => `${realm.host} answered 200 without a token`;

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
