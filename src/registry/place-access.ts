import type {Action, Caller} from '../caller.ts';
import type {Events} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import type {RepositoryName} from '../oci/name.ts';
import type {UpstreamFailure} from '../upstream/port.ts';
import type {AccessPolicy} from './access-policy.ts';
import type {Place} from './access-rules.ts';
import type {Route} from './namespace.ts';
import type {Registry} from './registries.ts';
import {notServed} from './served.ts';

export interface Denied {
  readonly verdict: 'denied';
  /** The upstream's own answer, where it is the one that denies; or what the client is told instead of DENIED. */
  readonly failure: UpstreamFailure | OciError | undefined;
  /** Which rule denies it, or what is missing, where the configuration is what denies. */
  readonly reason: string | undefined;
}

/**
 * May this caller have it? `unknown`: the repository does not have it, as far as this caller may know.
 * @template Grant what is known of the content, for an answer without a second question
 */
export type Decision<Grant = object> =
  /** `isAudited`: the rules would deny it if they were enforced. */
  | ({readonly verdict: 'allowed'; readonly isAudited?: boolean} & Grant)
  | Denied
  | {readonly verdict: 'unknown'};

/**
 * What a decision grants; undefined for what the repository does not have.
 * @throws UpstreamFailure or OciError where it is denied
 */
export function grantIn<Grant>(decision: Decision<Grant>): Grant | undefined {
  if (decision.verdict === 'denied') throw denial(decision);
  return decision.verdict === 'allowed' ? decision : undefined;
}

/** The answer to a caller who is denied something. */
export const denial = ({failure, reason}: Denied): UpstreamFailure | OciError =>
  failure ?? new OciError('DENIED', reason === undefined ? {} : {message: reason});

/** Decides by the configuration alone who may do what where. Asked before anything is looked for. */
export interface PlaceAccess {
  /**
   * May this caller do this in this repository? Decided once per request, and per repository of a list, before anything
   * is looked for.
   * @param tag where the request names one
   */
  repository(route: Route, caller: Caller, action: Action, tag?: string): Decision;
  /** The same for a question that denies nobody anything, and so is not reported. */
  may(route: Route, caller: Caller, action: Action, tag?: string): boolean;
  /** May this caller do this in a registry as a whole, or in all of them where none is named? */
  registry(registry: Registry | undefined, caller: Caller, action: Action): Decision;
  /**
   * May this caller hear that a place does not exist, or takes no pushes? It may where it may do this, or pull. Where it
   * may not, the denial is that of any other place.
   */
  disclosure(place: Place, caller: Caller, action: Action): Decision;
  /** Which repositories of a registry the caller may pull from, for a list of them; undefined: none. */
  visibleRepositories(registry: Registry, caller: Caller): ((name: RepositoryName) => boolean) | undefined;
  /** Which tags of a repository the caller may pull, for a list of them; undefined: all, if it may pull from it at all. */
  visibleTags(route: Route, caller: Caller): ((tag: string) => boolean) | undefined;
  /** Whether the caller may pull everything, so that an upstream may mount a blob from wherever it is. */
  isOpenTo(caller: Caller): boolean;
}

export interface PlaceAccessParts {
  /** The rules in force. */
  policy(): AccessPolicy;
  events: Events;
}

const ALLOWED = Object.freeze({verdict: 'allowed'});
const AUDITED = Object.freeze({verdict: 'allowed', isAudited: true});

export function createPlaceAccess({policy, events}: PlaceAccessParts): PlaceAccess {
  /** What the rules say, and reports a denial. */
  function rulingOn(caller: Caller, place: Place, action: Action): Decision {
    const ruling = policy().decide(caller, place, action);
    const reason = ruling.isAllowed ? ruling.audited : ruling.reason;
    if (reason !== undefined) {
      const mode = ruling.isAllowed ? 'audit' : 'enforce';
      events.emit('access.denied', {mode, caller: caller.names[0], action, ...place, reason});
    }
    if (!ruling.isAllowed) return denied(ruling.reason);
    return ruling.audited === undefined ? ALLOWED : AUDITED;
  }

  return {
    repository(route, caller, action, tag) {
      const {registry, repository} = route;
      const ruling = rulingOn(caller, placeOf(route, tag), action);
      if (ruling.verdict === 'denied') return ruling;
      if (action !== 'pull' && registry.push.mode === 'deny')
        return denied(`registry ${registry.name} is a mirror and takes no pushes`);
      if (registry.serves(repository.name)) return ruling;
      // To a client that pulls, a repository that the configuration leaves out does not exist.
      const failure = notServed(route, action === 'pull' ? 'NAME_UNKNOWN' : 'DENIED');
      return {verdict: 'denied', failure, reason: undefined};
    },

    may: (route, caller, action, tag) =>
      route.registry.serves(route.repository.name) &&
      policy().decide(caller, placeOf(route, tag), action).isAllowed,

    registry: (registry, caller, action) =>
      rulingOn(caller, {registry: registry?.name, repository: undefined, tag: undefined}, action),

    disclosure: (place, caller, action) =>
      policy().decide(caller, place, 'pull').isAllowed ? ALLOWED : rulingOn(caller, place, action),

    visibleRepositories(registry, caller) {
      const isVisible = policy().repositoryFilter(caller, registry.name);
      return isVisible && ((name) => registry.serves(name) && isVisible(name));
    },

    visibleTags: (route, caller) => policy().tagFilter(caller, placeOf(route, undefined)),

    isOpenTo: (caller) => policy().isOpenTo(caller),
  };
}

/** What a request for a repository is about, in the terms of rules. */
export const placeOf = ({repository: {registry, name}}: Route, tag: string | undefined): Place => ({
  registry,
  repository: name,
  tag,
});

const denied = (reason: string): Denied => ({verdict: 'denied', failure: undefined, reason});
