import {LRUCache} from 'lru-cache';
import {z} from 'zod';
import type {Clock} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import {collect, discard} from '../transport/body.ts';
import {type Budget, startBudget, waitFor} from '../transport/budget.ts';
import {ConnectionFault} from '../transport/fault.ts';
import {parseRetryAfter} from '../transport/pacing.ts';
import type {RateGates} from '../transport/rate-limits.ts';
import {follow} from '../transport/redirect.ts';
import type {RedirectNetwork} from '../transport/redirect-hosts.ts';
import {header, type Reply, type RequestOptions, type Send, whereFrom} from '../transport/request.ts';
import {persist} from '../transport/retry.ts';
import type {Credentials} from './credentials.ts';
import {basicAuthorization, type Login} from './login.ts';
import type {LoginGate} from './login-gate.ts';

/** Where a token is to be had, and for what: a checked Bearer challenge. */
export interface TokenSource {
  realm: URL;
  service: string | undefined;
  /** One or more scopes, separated by spaces. */
  scope: string;
}

export interface Token {
  value: string;
  /** Exchanged for this very request; an upstream that refuses it means it. */
  fresh: boolean;
}

export interface Tokens {
  /**
   * A token of the cache, or a new one. All who want the same one wait for one exchange.
   * @param stale a token that the upstream has just refused.
   * @param left milliseconds for which one of the cache must be good at the least, or half of its life if that is less.
   * @throws UpstreamFailure `token`, `throttled`, `denied` or `credentials`.
   */
  get(
    source: TokenSource,
    callerKey: string,
    stale: string | undefined,
    signal: AbortSignal,
    left?: number,
  ): Promise<Token>;
  /** Forgets a token that the upstream refused, unless it was replaced meanwhile. */
  drop(source: TokenSource, callerKey: string, stale: string | undefined): void;
}

export interface TokensDeps {
  /** The upstream's host, for its failures. */
  host: string;
  send: Send;
  credentials: Credentials;
  gate: LoginGate;
  gates: RateGates;
  /** The network by which a token service, or where it redirects to, may be asked. */
  networkOf: RedirectNetwork;
  clock: Clock;
  /** Milliseconds for one exchange, retries included. */
  budget: number;
}

/** The token specification's life of a token whose answer names none, milliseconds. */
const DEFAULT_LIFE = 60_000;
/** A token is renewed before its end: by a tenth of its life, at most by this. */
const LONGEST_LEAD = 30_000;
const MAX_TOKENS = 10_000;
const MAX_BYTES = 1024 * 1024;

const text = z.string().regex(/^[\x21-\x7e]+$/);
const tokenAnswer = z.object({
  token: text.optional().catch(undefined),
  access_token: text.optional().catch(undefined),
  expires_in: z.number().positive().optional().catch(undefined),
  issued_at: z.string().optional().catch(undefined),
});

/**
 * How long a token may be used, in milliseconds from `now` (distribution, "Token Authentication Specification"):
 * `expires_in` seconds after `issued_at`; either may be missing. A clock that is ahead of ours adds nothing.
 */
export function tokenLife(
  answer: {expires_in?: number | undefined; issued_at?: string | undefined},
  now: number,
): number {
  const life = answer.expires_in === undefined ? DEFAULT_LIFE : answer.expires_in * 1000;
  const issuedAt = Date.parse(answer.issued_at ?? '');
  const age = Number.isNaN(issuedAt) ? 0 : Math.max(0, now - issuedAt);
  return Math.max(0, life - age - Math.min(life / 10, LONGEST_LEAD));
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
  for (const one of scope.split(' ')) url.searchParams.append('scope', one);
  return {method: 'GET', url, headers: login ? {authorization: basicAuthorization(login)} : {}};
}

export function createTokens({
  host,
  send,
  credentials,
  gate,
  gates,
  networkOf,
  clock,
  budget: total,
}: TokensDeps): Tokens {
  const cache = new LRUCache<string, {value: string; life: number; until: number}>({max: MAX_TOKENS});
  const exchanges = new Map<string, Promise<string>>();

  const failure = (reason: string, cause?: unknown): UpstreamFailure =>
    new UpstreamFailure('token', host, reason, {cause});

  const toEnd: Send = (options, signal) => follow(send, options, signal, networkOf);
  const silent = ({realm}: TokenSource): UpstreamFailure =>
    failure(`its token service ${realm.host} did not answer in time`);

  const request = async (source: TokenSource, login: Login | undefined, budget: Budget): Promise<Reply> => {
    const network = await waitFor(networkOf(source.realm), budget.signal);
    const options = {...tokenRequest(source, login), network};
    const attempt = () => (options.method === 'POST' ? send : toEnd)(options, budget.signal);
    if (!login) return persist(attempt, budget, clock);
    return gate.login(
      () => persist(attempt, budget, clock),
      (reply) => {
        if (reply.status === 200) return 'accepted';
        // ghcr.io answers 403 to a bad password, GitLab to a good one that may not read this repository.
        // RFC 6749, section 5.2: a refresh token that is no longer good is 400 invalid_grant.
        const refused = reply.status === 401 || (reply.status === 400 && options.method === 'POST');
        if (!refused && reply.status !== 403) return 'undecided';
        discard(reply.body);
        return refused ? 'refused' : 'forbidden';
      },
      budget.signal,
    );
  };

  /** All of the answer comes within the budget, or it is none. */
  const read = async (
    source: TokenSource,
    reply: Reply,
    budget: Budget,
  ): Promise<{value: string; life: number}> => {
    const {status} = reply;
    const service = source.realm.host;
    if (status !== 200) discard(reply.body);
    if (status === 429) {
      const retryAfter = parseRetryAfter(header(reply.headers, 'retry-after'), clock.now());
      // Where the realm redirects to is a host of its own: often the realm's is that of the registry.
      const reason = `its token service ${service} limits our rate (429)${whereFrom(reply, service)}`;
      throw gates.limited({host: reply.url.host, reason, retryAfter});
    }
    if (status === 401 || status === 403) {
      throw new UpstreamFailure(
        'denied',
        host,
        `its token service ${service} gives no token for ${source.scope} (${status})`,
      );
    }
    if (status !== 200) throw failure(`its token service ${service} answered ${status}`);
    const close = () => reply.body.close();
    budget.signal.addEventListener('abort', close, {once: true});
    const bytes = await collect(reply.body, service, MAX_BYTES, 'a token');
    const answer = tokenAnswer.safeParse(parseJson(bytes));
    const value = answer.data?.token ?? answer.data?.access_token;
    if (!answer.data || value === undefined)
      throw failure(`its token service ${service} answered 200 without a token`);
    return {value, life: tokenLife(answer.data, clock.now())};
  };

  const exchange = async (source: TokenSource, key: string): Promise<string> => {
    const login = await credentials.read();
    const budget = startBudget(clock, total);
    try {
      const {value, life} = await read(source, await request(source, login, budget), budget);
      cache.set(key, {value, life, until: clock.monotonic() + life});
      return value;
    } catch (error) {
      const isCut = error instanceof ConnectionFault || !(error instanceof UpstreamFailure);
      if (budget.signal.aborted && isCut) throw silent(source);
      if (error instanceof ConnectionFault) throw failure(`its token service ${error.message}`, error.cause);
      throw error;
    } finally {
      budget.end();
    }
  };

  const keyOf = ({realm, service, scope}: TokenSource, callerKey: string): string =>
    JSON.stringify([realm.href, service, scope, callerKey]);

  return {
    async get(source, callerKey, stale, signal, left = 0) {
      const key = keyOf(source, callerKey);
      const kept = cache.get(key);
      const needed = Math.min(left, (kept?.life ?? 0) / 2);
      if (kept && kept.value !== stale && clock.monotonic() + needed < kept.until)
        return {value: kept.value, fresh: false};
      let running = exchanges.get(key);
      if (!running) {
        running = exchange(source, key).finally(() => exchanges.delete(key));
        exchanges.set(key, running);
        running.catch(() => undefined);
      }
      const value = await waitFor(running, signal).catch((error: unknown) => {
        if (error instanceof UpstreamFailure) throw error;
        throw signal.aborted ? silent(source) : error;
      });
      return {value, fresh: true};
    },
    drop(source, callerKey, stale) {
      const key = keyOf(source, callerKey);
      if (cache.get(key)?.value === stale) cache.delete(key);
    },
  };
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
