import {isDeepStrictEqual} from 'node:util';
import type {Caller} from '../../caller.ts';
import {createLru} from '../../lru.ts';
import type {RepositoryName} from '../../oci/name.ts';
import {UpstreamFailure} from '../port.ts';
import {discard} from '../transport/body.ts';
import {header, type Method, type Reply} from '../transport/reply.ts';
import {parseChallenges, refusedRealm} from './challenge.ts';
import type {Credentials} from './credentials.ts';
import {basicAuthorization, type LoginGate} from './login.ts';
import type {TokenSource, Tokens} from './token.ts';

/** Sends one request with this `Authorization`, or without one. Follows redirects. */
export type Attempt = (authorization: string | undefined) => Promise<Reply>;

export interface Auth {
  /**
   * Sends a request with the authorization that the upstream is known to require, and responds to its challenge.
   * @returns the reply; never a 401 of the upstream itself.
   * @throws UpstreamFailure `denied`, `credentials`, `token`, `throttled` or `protocol`.
   */
  send(attempt: Attempt, permission: Permission, signal: AbortSignal): Promise<Reply>;
  /**
   * The same for a request whose body cannot be sent again. It uses a token with enough life left for the transfer. A 401
   * fails the request, and the client's next attempt uses a new token.
   */
  sendOnce(attempt: Attempt, permission: Permission, signal: AbortSignal): Promise<Reply>;
  /** Whether it is known which authorization the upstream requires for this, and a login would not block others. */
  knows(permission: Permission): boolean;
}

/** The permission that a request needs. */
export interface Permission {
  repository: RepositoryName;
  caller: Caller;
  /** As in token scopes. */
  actions: 'pull' | 'pull,push' | 'pull,push,delete';
  /** A repository to mount from. */
  from?: RepositoryName | undefined;
  /** Ignore the challenge's scope. For a request outside the repository: GHCR's challenge to `/v2/` names a placeholder scope. */
  ownScope?: true | undefined;
  /** For the login itself: no scope at all. */
  isLogin?: true | undefined;
}

/** The actions that distribution's registry requires for each method. */
export const ACTIONS: Record<Method, Permission['actions']> = {
  GET: 'pull',
  HEAD: 'pull',
  POST: 'pull,push',
  PATCH: 'pull,push',
  PUT: 'pull,push',
  DELETE: 'pull,push,delete',
};

export interface AuthDeps {
  upstream: URL;
  insecure: boolean;
  realmHosts: readonly string[];
  credentials: Credentials;
  gate: LoginGate;
  tokens: Tokens;
}

/** How an upstream wants requests to be authorized. */
type Scheme = {name: 'basic'} | {name: 'bearer'; source: TokenSource};

/** What one request is authorized with. */
interface Authorization {
  scheme: 'none' | 'basic' | 'bearer';
  /** The header's value. */
  value: string | undefined;
  /** The token itself, to identify it when it is refused. */
  token: string | undefined;
  /** Obtained for this request: if the upstream refuses it, another would be refused too. */
  fresh: boolean;
}

const ANONYMOUS: Authorization = {scheme: 'none', value: undefined, token: undefined, fresh: false};
/** How long a token must stay valid when it is sent with a body that cannot be sent again. */
const MIN_LIFE_FOR_UPLOAD_MS = 60_000;
const EXPIRED = 'asked for another token (401) after part of the upload was sent; send the upload again';
/** Permissions whose scheme is remembered. */
const MAX_SCHEMES = 10_000;

const keyOf = ({repository, actions, caller, from, isLogin}: Permission): string =>
  JSON.stringify([repository, actions, caller.key, from, isLogin]);

/** The scope to request when the challenge names none (distribution, "Token Scope Documentation"). */
const scopeOf = ({repository, actions, from}: Permission): string =>
  `repository:${repository}:${actions}${from === undefined ? '' : ` repository:${from}:pull`}`;

export const createAuth = (deps: AuthDeps): Auth => new UpstreamAuth(deps);

class UpstreamAuth implements Auth {
  readonly #deps: AuthDeps;
  readonly #schemes = createLru<string, Scheme>(MAX_SCHEMES);
  /** Permissions for which a write succeeded without authorization. */
  readonly #open = createLru<string, true>(MAX_SCHEMES);

  constructor(deps: AuthDeps) {
    this.#deps = deps;
  }

  async send(attempt: Attempt, permission: Permission, signal: AbortSignal): Promise<Reply> {
    const key = keyOf(permission);
    const known = this.#schemes.get(key);
    let authorization = known ? await this.#authorize(key, known, permission, signal) : ANONYMOUS;
    for (;;) {
      const reply = await this.#sendWith(attempt, authorization, permission, signal);
      if (!this.#isChallenge(reply)) {
        if (permission.actions !== 'pull' && authorization.scheme === 'none') this.#open.set(key, true);
        return reply;
      }
      discard(reply.body);
      if (authorization.fresh) throw this.#refused(key, permission);
      const refused = authorization.token;
      const next = await this.#authorize(key, this.#schemeOf(reply, permission), permission, signal, {
        refused,
      });
      // After the second refusal no other token is tried, even when another request has just obtained this one.
      authorization = authorization.scheme === 'none' ? next : {...next, fresh: true};
    }
  }

  async sendOnce(attempt: Attempt, permission: Permission, signal: AbortSignal): Promise<Reply> {
    const {host} = this.#deps.upstream;
    const key = keyOf(permission);
    const known = this.#schemes.get(key);
    const authorization = known
      ? await this.#authorize(key, known, permission, signal, {minLife: MIN_LIFE_FOR_UPLOAD_MS})
      : ANONYMOUS;
    const reply = await this.#sendWith(attempt, authorization, permission, signal);
    if (!this.#isChallenge(reply)) return reply;
    discard(reply.body);
    const scheme = this.#schemeOf(reply, permission);
    if (authorization.fresh && isDeepStrictEqual(scheme, known)) throw this.#refused(key, permission);
    this.#schemes.set(key, scheme);
    this.#open.delete(key);
    if (known?.name === 'bearer')
      this.#deps.tokens.drop(known.source, permission.caller, authorization.token);
    throw new UpstreamFailure('status', host, EXPIRED, {retryAfter: 1000});
  }

  knows(permission: Permission): boolean {
    const key = keyOf(permission);
    // An unproven login would block all others for as long as the upload takes.
    if (this.#schemes.get(key)?.name === 'basic') return this.#deps.gate.proven();
    return this.#schemes.has(key) || this.#open.has(key);
  }

  #denied(reason: string): UpstreamFailure {
    return new UpstreamFailure('denied', this.#deps.upstream.host, reason);
  }

  #refused(key: string, {repository}: Permission): UpstreamFailure {
    this.#schemes.delete(key);
    return this.#denied(`refuses a new token for ${repository} (401)`);
  }

  /** A 401 from another host, after a redirect, is not a challenge for our credentials. */
  #isChallenge({status, url}: Reply): boolean {
    return status === 401 && url.origin === this.#deps.upstream.origin;
  }

  #schemeOf(reply: Reply, permission: Permission): Scheme {
    const challenges = parseChallenges(header(reply.headers, 'www-authenticate') ?? '');
    const bearer = challenges.find(({scheme}) => scheme === 'bearer');
    if (bearer) return this.#bearerScheme(bearer.params, permission);
    if (challenges.some(({scheme}) => scheme === 'basic')) return {name: 'basic'};
    throw this.#denied('answered 401 without a Bearer or Basic challenge');
  }

  #bearerScheme(params: ReadonlyMap<string, string>, permission: Permission): Scheme {
    const {upstream, realmHosts, insecure, credentials} = this.#deps;
    const realm = URL.parse(params.get('realm') ?? '');
    if (!realm) {
      const reason = 'sent a Bearer challenge whose realm is missing or not a valid URL';
      throw new UpstreamFailure('protocol', upstream.host, reason);
    }
    const fault = refusedRealm(realm, upstream, {realmHosts, insecure});
    if (fault)
      throw new UpstreamFailure(credentials.configured ? 'credentials' : 'protocol', upstream.host, fault);
    const named = permission.ownScope ? undefined : params.get('scope')?.trim();
    const scope = permission.isLogin ? '' : named || scopeOf(permission);
    return {name: 'bearer', source: {realm, service: params.get('service'), scope}};
  }

  /**
   * Obtains what a scheme requires, and remembers the scheme.
   * @param refused a token that the upstream has just refused.
   * @param minLife milliseconds for which a cached token must stay valid.
   */
  async #authorize(
    key: string,
    scheme: Scheme,
    {caller}: Permission,
    signal: AbortSignal,
    {refused, minLife = 0}: {refused?: string | undefined; minLife?: number} = {},
  ): Promise<Authorization> {
    try {
      const authorization =
        scheme.name === 'bearer'
          ? await this.#bearer(scheme.source, caller, refused, signal, minLife)
          : await this.#basic(caller);
      this.#schemes.set(key, scheme);
      return authorization;
    } catch (error) {
      // Refused credentials: remember the scheme, so that the next request fails without being sent. Otherwise forget
      // it, so that the next request is challenged again: the upstream may have moved to another token service.
      if (error instanceof UpstreamFailure && error.kind === 'credentials') this.#schemes.set(key, scheme);
      else this.#schemes.delete(key);
      throw error;
    }
  }

  async #bearer(
    source: TokenSource,
    caller: Caller,
    refused: string | undefined,
    signal: AbortSignal,
    minLife: number,
  ): Promise<Authorization> {
    const {value, fresh} = await this.#deps.tokens.get(source, caller, refused, signal, minLife);
    return {scheme: 'bearer', value: `Bearer ${value}`, token: value, fresh};
  }

  async #basic(caller: Caller): Promise<Authorization> {
    const {upstream, credentials} = this.#deps;
    const login = await credentials.read(caller);
    if (!login)
      throw this.#denied(
        'requires a user name and password; set upstream.credentials, or add an entry there',
      );
    if (login.kind !== 'basic') {
      const reason = 'requires a user name and password, but upstream.credentials has an identity token';
      throw new UpstreamFailure('credentials', upstream.host, reason);
    }
    return {scheme: 'basic', value: basicAuthorization(login), token: undefined, fresh: true};
  }

  #sendWith(
    attempt: Attempt,
    {scheme, value}: Authorization,
    {caller}: Permission,
    signal: AbortSignal,
  ): Promise<Reply> {
    if (scheme !== 'basic') return attempt(value);
    // With Basic, each request is a login.
    return this.#deps.gate.login(
      () => attempt(value),
      (reply) => {
        if (!this.#isChallenge(reply)) {
          const isAccepted = reply.status < 500 && reply.status !== 429;
          // Some registries answer 403 to a wrong login.
          if (isAccepted && reply.status !== 403) caller.login?.accept(this.#deps.upstream.host);
          return isAccepted ? 'accepted' : 'undecided';
        }
        discard(reply.body);
        return 'refused';
      },
      signal,
    );
  }
}
