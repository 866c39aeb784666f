import {isDeepStrictEqual} from 'node:util';
import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {RepositoryName} from '../../oci/name.ts';
import {UpstreamFailure} from '../port.ts';
import {discard} from '../transport/body.ts';
import {header, type Reply} from '../transport/request.ts';
import {parseChallenges} from './challenge.ts';
import type {Credentials} from './credentials.ts';
import {basicAuthorization} from './login.ts';
import type {LoginGate} from './login-gate.ts';
import {refusedRealm} from './realm.ts';
import type {TokenSource, Tokens} from './token.ts';

/** Sends one request with this `Authorization`, or without one. Follows redirects. */
export type Attempt = (authorization: string | undefined) => Promise<Reply>;

export interface Auth {
  /**
   * Sends a request for a repository with what the upstream is known to want for it, and answers its challenge.
   * @returns the answer; never a 401 of the upstream itself.
   * @throws UpstreamFailure `denied`, `credentials`, `token`, `throttled` or `protocol`.
   */
  send(attempt: Attempt, permission: Permission, signal: AbortSignal): Promise<Reply>;
  /**
   * The same for a request whose body cannot be sent again: its token has some life before it, and a 401 is a failure
   * that is over when the client tries again.
   */
  sendOnce(attempt: Attempt, permission: Permission, signal: AbortSignal): Promise<Reply>;
  /** Is it known what the upstream wants for this, and that its logins wait for nobody? */
  knows(permission: Permission): boolean;
}

/** What a request needs to be allowed. */
export interface Permission {
  repository: RepositoryName;
  caller: Caller;
  /** As token scopes name it. */
  actions: 'pull' | 'pull,push' | 'pull,push,delete';
  /** A repository that something is to be mounted from. */
  from?: RepositoryName | undefined;
  /** The challenge comes from no resource of the repository: GHCR's, to `/v2/`, names a scope that is made up. */
  ownScope?: true | undefined;
}

export interface AuthDeps {
  upstream: URL;
  insecure: boolean;
  realmHosts: readonly string[];
  credentials: Credentials;
  gate: LoginGate;
  tokens: Tokens;
}

/** What an upstream wants to see for a repository. */
type Demand = {scheme: 'basic'} | {scheme: 'bearer'; source: TokenSource};

/** A demand met: what to send, and how sure we are of it. */
interface Ticket {
  scheme: 'none' | 'basic' | 'bearer';
  authorization: string | undefined;
  /** The token itself, to tell the cache which one was refused. */
  token: string | undefined;
  fresh: boolean;
}

const NO_TICKET: Ticket = {scheme: 'none', authorization: undefined, token: undefined, fresh: false};
/** Milliseconds that a token must be good for when it goes with bytes that cannot be sent again. */
const LEFT_FOR_ONCE = 60_000;
const EXPIRED =
  'asked for another token when the bytes of the upload were under way (401); they have to be sent again';
/** Repositories whose demand is remembered. */
const MAX_DEMANDS = 10_000;

const keyOf = ({repository, actions, caller, from}: Permission): string =>
  JSON.stringify([repository, actions, caller.key, from]);

/** What is asked of the token service where the challenge names nothing (distribution, "Token Scope Documentation"). */
const scopeOf = ({repository, actions, from}: Permission): string =>
  `repository:${repository}:${actions}${from === undefined ? '' : ` repository:${from}:pull`}`;

export function createAuth({upstream, insecure, realmHosts, credentials, gate, tokens}: AuthDeps): Auth {
  const {host} = upstream;
  const demands = new LRUCache<string, Demand>({max: MAX_DEMANDS});
  /** Where a write went through without a demand. */
  const open = new LRUCache<string, true>({max: MAX_DEMANDS});

  const denied = (reason: string): UpstreamFailure => new UpstreamFailure('denied', host, reason);

  const bearerDemand = (params: ReadonlyMap<string, string>, permission: Permission): Demand => {
    const realm = URL.parse(params.get('realm') ?? '');
    if (!realm)
      throw new UpstreamFailure('protocol', host, 'sent a Bearer challenge without a realm that is a URL');
    const fault = refusedRealm(realm, upstream, {realmHosts, insecure});
    if (fault) throw new UpstreamFailure(credentials.configured ? 'credentials' : 'protocol', host, fault);
    const named = permission.ownScope ? undefined : params.get('scope')?.trim();
    const scope = named || scopeOf(permission);
    return {scheme: 'bearer', source: {realm, service: params.get('service'), scope}};
  };

  const demandOf = (reply: Reply, permission: Permission): Demand => {
    const challenges = parseChallenges(header(reply.headers, 'www-authenticate') ?? '');
    const bearer = challenges.find(({scheme}) => scheme === 'bearer');
    if (bearer) return bearerDemand(bearer.params, permission);
    if (challenges.some(({scheme}) => scheme === 'basic')) return {scheme: 'basic'};
    throw denied('answered 401 without a Bearer or Basic challenge');
  };

  const meet = async (
    demand: Demand,
    caller: Caller,
    stale: string | undefined,
    signal: AbortSignal,
    left: number,
  ): Promise<Ticket> => {
    if (demand.scheme === 'bearer') {
      const {value, fresh} = await tokens.get(demand.source, caller.key, stale, signal, left);
      return {scheme: 'bearer', authorization: `Bearer ${value}`, token: value, fresh};
    }
    const login = await credentials.read();
    if (!login) throw denied('asks for a user name and password, and upstream.credentials has none for it');
    if (login.kind !== 'basic') {
      throw new UpstreamFailure(
        'credentials',
        host,
        'asks for a user name and password, and upstream.credentials holds an identity token',
      );
    }
    return {scheme: 'basic', authorization: basicAuthorization(login), token: undefined, fresh: true};
  };

  /** A 401 that came after a redirect to somewhere else is not for us to answer. */
  const isChallenge = (reply: Reply): boolean => reply.status === 401 && reply.url.origin === upstream.origin;

  const sendWith = (attempt: Attempt, ticket: Ticket, signal: AbortSignal): Promise<Reply> => {
    if (ticket.scheme !== 'basic') return attempt(ticket.authorization);
    // With Basic, each request is a login.
    return gate.login(
      () => attempt(ticket.authorization),
      (reply) => {
        if (!isChallenge(reply)) return reply.status < 500 && reply.status !== 429 ? 'accepted' : 'undecided';
        discard(reply.body);
        return 'refused';
      },
      signal,
    );
  };

  /** Meets a demand, and remembers it where it is worth it: with refused credentials, so as not to ask in vain. */
  const meetKnown = async (
    key: string,
    demand: Demand,
    caller: Caller,
    stale: string | undefined,
    signal: AbortSignal,
    left = 0,
  ) => {
    try {
      const ticket = await meet(demand, caller, stale, signal, left);
      demands.set(key, demand);
      return ticket;
    } catch (error) {
      // Otherwise the next request hears the challenge anew: the upstream may have moved to another token service.
      if (error instanceof UpstreamFailure && error.kind === 'credentials') demands.set(key, demand);
      else demands.delete(key);
      throw error;
    }
  };

  return {
    async send(attempt, permission, signal) {
      const {repository, caller, actions} = permission;
      const key = keyOf(permission);
      const known = demands.get(key);
      let ticket = known ? await meetKnown(key, known, caller, undefined, signal) : NO_TICKET;
      for (;;) {
        const reply = await sendWith(attempt, ticket, signal);
        if (!isChallenge(reply)) {
          if (actions !== 'pull' && ticket.scheme === 'none') open.set(key, true);
          return reply;
        }
        discard(reply.body);
        if (ticket.fresh) {
          demands.delete(key);
          throw denied(`refuses a new token for ${repository} (401)`);
        }
        const next = await meetKnown(key, demandOf(reply, permission), caller, ticket.token, signal);
        // A token that somebody else renewed meanwhile is as good as new: a second refusal of it is meant.
        ticket = ticket.scheme === 'none' ? next : {...next, fresh: true};
      }
    },
    async sendOnce(attempt, permission, signal) {
      const {repository, caller} = permission;
      const key = keyOf(permission);
      const known = demands.get(key);
      const ticket = known
        ? await meetKnown(key, known, caller, undefined, signal, LEFT_FOR_ONCE)
        : NO_TICKET;
      const reply = await sendWith(attempt, ticket, signal);
      if (!isChallenge(reply)) return reply;
      discard(reply.body);
      const demand = demandOf(reply, permission);
      if (ticket.fresh && isDeepStrictEqual(demand, known)) {
        demands.delete(key);
        throw denied(`refuses a new token for ${repository} (401)`);
      }
      demands.set(key, demand);
      open.delete(key);
      if (known?.scheme === 'bearer') tokens.drop(known.source, caller.key, ticket.token);
      throw new UpstreamFailure('status', host, EXPIRED, {retryAfter: 1000});
    },
    knows(permission) {
      const key = keyOf(permission);
      // Others would wait for a login that takes as long as an upload.
      if (demands.get(key)?.scheme === 'basic') return gate.proven();
      return demands.has(key) || open.has(key);
    },
  };
}
