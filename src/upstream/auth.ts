import {LRUCache} from 'lru-cache';
import type {Caller} from '../caller.ts';
import type {RepositoryName} from '../oci/name.ts';
import {discard} from './body.ts';
import {parseChallenges} from './challenge.ts';
import type {Credentials} from './credentials.ts';
import {basicAuthorization} from './login.ts';
import type {LoginGate} from './login-gate.ts';
import {UpstreamFailure} from './port.ts';
import {refusedRealm} from './realm.ts';
import {header, type Reply} from './request.ts';
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
}

/** What a request needs to be allowed. */
export interface Permission {
  repository: RepositoryName;
  caller: Caller;
  /** As token scopes name it. */
  actions: 'pull' | 'pull,push';
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
/** Repositories whose demand is remembered. */
const MOST_DEMANDS = 10_000;

export function createAuth({upstream, insecure, realmHosts, credentials, gate, tokens}: AuthDeps): Auth {
  const {host} = upstream;
  const demands = new LRUCache<string, Demand>({max: MOST_DEMANDS});

  const denied = (reason: string): UpstreamFailure => new UpstreamFailure('denied', host, reason);

  const bearerDemand = (params: ReadonlyMap<string, string>, {repository, actions}: Permission): Demand => {
    const realm = URL.parse(params.get('realm') ?? '');
    if (!realm)
      throw new UpstreamFailure('protocol', host, 'sent a Bearer challenge without a realm that is a URL');
    const fault = refusedRealm(realm, upstream, {realmHosts, insecure});
    if (fault) throw new UpstreamFailure(credentials.configured ? 'credentials' : 'protocol', host, fault);
    const scope = params.get('scope')?.trim() || `repository:${repository}:${actions}`;
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
  ): Promise<Ticket> => {
    if (demand.scheme === 'bearer') {
      const {value, fresh} = await tokens.get(demand.source, caller.key, stale, signal);
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
  ) => {
    try {
      const ticket = await meet(demand, caller, stale, signal);
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
      const key = JSON.stringify([repository, actions, caller.key]);
      const known = demands.get(key);
      let ticket = known ? await meetKnown(key, known, caller, undefined, signal) : NO_TICKET;
      for (;;) {
        const reply = await sendWith(attempt, ticket, signal);
        if (!isChallenge(reply)) return reply;
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
  };
}
