import {type Action, type Caller, isAnonymous, type Scope} from '../caller.ts';
import type {RequestKind} from '../events.ts';
import {type Authenticator, LoginRefused} from '../identity/authenticator.ts';
import type {OwnLogins} from '../identity/own-logins.ts';
import {CATALOG, covers, formatScope, scopeFor} from '../identity/scopes.ts';
import {OciError} from '../oci/errors.ts';
import {isDigestReference, parseReference, type Tag} from '../oci/name.ts';
import type {Access} from '../registry/access.ts';
import {type Route, registryOf, routeOf, UnknownRegistry} from '../registry/namespace.ts';
import {type Decision, denial, placeOf} from '../registry/place-access.ts';
import type {Registry} from '../registry/registries.ts';
import type {Answer, Handler} from './answer.ts';
import {type LoginPlace, type Unauthorized, unauthorized, wrongLogin} from './challenge.ts';
import {type Methods, operationFor, pushRefused, readsOf} from './methods.ts';
import {
  admitOwn,
  NEEDS_LOGIN,
  type OwnLoginCheck,
  ownRegistry,
  type PassthroughRegistry,
  passthroughAt,
  requireLogin,
  visitorOf,
} from './passthrough.ts';
import {headerOf, type Request, singleParameter} from './request.ts';
import type {Exchange} from './send.ts';

interface Operation<Place> {
  /** What the caller must be allowed to do at the place. */
  readonly action: Action;
  readonly handler: Handler<Place>;
}

/** A path that is served. What it needs says what its requests are routed to and authorized for. */
export type Endpoint = {
  readonly path: string;
  /** For the log and the metrics. */
  readonly kind: RequestKind;
  /** The listeners that serve it; without it, those of registries. `admin`: these too, if there are no others. */
  readonly at?: 'admin' | 'everywhere';
} /** `login`: credentials, once somebody can log in. `operator`: `admin`, except on a listener of operators. */ & (
  | {
      readonly needs: 'none' | 'login' | 'operator';
      readonly methods: Methods<{readonly handler: Handler<undefined>}>;
    }
  /** One registry, or all of them. */
  | {readonly needs: 'registry'; readonly methods: Methods<Operation<Registry | undefined>>}
  | {readonly needs: 'repository'; readonly methods: Methods<Operation<Route>>}
);

/** What decides about requests at the door. */
export interface DoorParts {
  /** Decides who may do what at the place that a request names. */
  access: Pick<Access, 'registry' | 'repository' | 'disclosure' | 'may' | 'isOpenTo' | 'visibleRepositories'>;
  authenticator: Authenticator;
  loginPlace: LoginPlace;
  ownLogins: OwnLogins;
}

/**
 * The one door: finds out who asks, routes a parsed request, authorizes it and gives it to its handler.
 * @param visitor what is known of the caller without its credential
 * @param exchange learns where the request was routed, for the log and for the answer to an error
 * @throws OciError when too many requests run already, for an unsupported method, for a wrong credential, for a place
 * that does not exist, and for a caller that is denied
 */
export async function answerAt(
  endpoint: Endpoint,
  request: Request,
  visitor: Caller,
  exchange: Asking['exchange'] & Pick<Exchange, 'kind' | 'isRepeatable'> & Routed,
  door: DoorParts,
): Promise<Answer> {
  exchange.kind = endpoint.kind;
  const {access} = door;
  switch (endpoint.needs) {
    case 'none': {
      exchange.admit(visitor);
      const {handler} = operationFor(endpoint.methods, request, () => false);
      return loggingIn(exchange, door, async () => handler(request, undefined, visitor));
    }
    case 'login': {
      const {handler} = operationFor(endpoint.methods, request, () => false);
      const own = passthroughAt(request.registries, request);
      // An upstream is asked about its own logins each time.
      exchange.isRepeatable = !own;
      const caller = await admitLogin({request, wanted: undefined, exchange, door, own}, visitor);
      return handler(request, undefined, caller);
    }
    case 'operator': {
      const {handler} = operationFor(endpoint.methods, request, () => false);
      if (request.entrance.serves === 'main')
        await admitOperator({request, wanted: CATALOG, exchange, door, own: undefined}, visitor);
      return handler(request, undefined, visitor);
    }
    case 'registry': {
      const {action, handler} = operationFor(endpoint.methods, request, () => false);
      exchange.action = action;
      const own = ownRegistry(request, () => registryAsked(request, exchange));
      const asking = {request, wanted: CATALOG, exchange, door, own};
      const caller = await identified(asking, visitor);
      const registry = within(
        asking,
        caller,
        action,
        () => undefined,
        () => registryAsked(request, exchange),
      );
      admit(access.registry(registry, caller, action), caller, asking);
      if (own && caller.login) await requireLogin(own, caller, ownCheck(asking));
      exchange.namespace = singleParameter(request, 'ns');
      return handler(request, registry, caller);
    }
    case 'repository': {
      const {methods} = endpoint;
      const {action, handler} = operationFor(methods, request, () =>
        seemsToTakePushes(request, exchange, visitor, access),
      );
      exchange.action = action;
      const own = ownRegistry(request, () => routed(request, exchange).registry);
      const asking = {request, wanted: scopeFor(request.params['name'] ?? '', action), exchange, door, own};
      const caller = await identified(asking, visitor);
      const named = () => tagIn(request);
      const route = within(asking, caller, action, named, () => routed(request, exchange));
      const tag = named();
      if (action !== 'pull' && isMirror(route)) {
        admit(access.disclosure(placeOf(route, tag), caller, action), caller, asking);
        throw pushRefused(route, readsOf(methods));
      }
      const decision = access.repository(route, caller, action, tag);
      admit(decision, caller, asking);
      // What the rules only audit is reported each time. An upstream's approval lapses.
      exchange.isRepeatable = !('isAudited' in decision) && !route.registry.approvals;
      await admitOwn(route, caller, {request, action, kind: endpoint.kind}, ownCheck(asking));
      exchange.namespace = singleParameter(request, 'ns');
      return handler(request, route, caller);
    }
  }
}

/** A request at the door. */
interface Asking {
  readonly request: Request;
  /** What a bearer token has to be for. */
  readonly wanted: Scope | undefined;
  readonly exchange: Pick<Exchange, 'admit' | 'caller' | 'action' | 'identity'>;
  readonly door: DoorParts;
  /** The registry that a login in the request is for, where its upstream takes the callers' own. */
  readonly own: PassthroughRegistry | undefined;
}

/** Whether nobody has logged in, and somebody could. */
const mayLogIn = (caller: Caller, {own, door}: Asking): boolean =>
  own ? caller.login === undefined : isAnonymous(caller) && door.authenticator.isOpen();

const challenged = (
  {request, wanted, door, own}: Asking,
  message: string,
  error?: Unauthorized['error'],
): OciError => unauthorized({message, scope: wanted, registry: own, error}, request.origin, door.loginPlace);

/**
 * Who asks, once the credential has been checked.
 * @throws OciError UNAUTHORIZED for a wrong credential, and for a token that is for something else; with status 429 or
 * 503 when too many requests run already
 */
async function identified(asking: Asking, visitor: Caller): Promise<Caller> {
  const {request, wanted, exchange, door, own: registry} = asking;
  const {headers, origin} = request;
  const {certificate} = request.entrance;
  const presented = {authorization: headers.authorization, address: origin.client, certificate};
  try {
    const finding = registry ? visitorOf(registry, presented, door) : door.authenticator.identify(presented);
    const found = await finding;
    exchange.identity = found;
    const {names, bound, scopes} = found;
    const caller = {...visitor, names, bound, scopes, ...('own' in found ? found.own : {})};
    exchange.caller = names[0];
    exchange.admit(caller);
    if (!wanted || covers(scopes, wanted)) return caller;
    throw challenged(asking, `the token is not for ${formatScope(wanted)}`, 'insufficient_scope');
  } catch (error) {
    if (!(error instanceof LoginRefused)) throw error;
    exchange.caller = error.claimed ?? exchange.caller;
    throw challenged(asking, error.message, error.isToken ? 'invalid_token' : undefined);
  }
}

/** Notes who logs in by an answer, or fails to. @throws OciError UNAUTHORIZED instead of LoginRefused */
async function loggingIn(
  exchange: Pick<Exchange, 'caller'>,
  {loginPlace}: DoorParts,
  answer: () => Promise<Answer>,
): Promise<Answer> {
  try {
    const given = await answer();
    exchange.caller = given.caller ?? exchange.caller;
    return given;
  } catch (error) {
    if (!(error instanceof LoginRefused)) throw error;
    exchange.caller = error.claimed ?? exchange.caller;
    throw wrongLogin(error.message, loginPlace);
  }
}

/**
 * Whether an unknown repository has the content is up to the verb.
 * @throws OciError UNAUTHORIZED for a denial that a login may end, DENIED for another; UpstreamFailure
 */
function admit(decision: Decision, caller: Caller, asking: Asking): void {
  if (decision.verdict !== 'denied') return;
  // A login for an upstream is nothing to the rules: the answer is the same as for any other registry.
  const ruled = {...asking, own: undefined};
  if (decision.failure || caller.login || !mayLogIn(caller, ruled)) throw denial(decision);
  throw challenged(ruled, decision.reason === undefined ? NEEDS_LOGIN : `${NEEDS_LOGIN}: ${decision.reason}`);
}

/** @throws as `identified`; OciError UNAUTHORIZED for who has not logged in and could */
async function admitLogin(asking: Asking, visitor: Caller): Promise<Caller> {
  const {own} = asking;
  const caller = await identified(asking, visitor);
  if (own && caller.login) await requireLogin(own, caller, ownCheck(asking));
  // Clients look here for the challenge. A token shows that its client has found it.
  else if (caller.scopes === undefined && mayLogIn(caller, asking)) throw challenged(asking, NEEDS_LOGIN);
  return caller;
}

/** @throws as `identified` and `admit`, unless the caller may operate the server */
async function admitOperator(asking: Asking, visitor: Caller): Promise<void> {
  asking.exchange.action = 'admin';
  const caller = await identified(asking, visitor);
  admit(asking.door.access.registry(undefined, caller, 'admin'), caller, asking);
}

/**
 * Where a request leads to. One that leads to no registry is denied as if there were such a registry; who may pull there is
 * told which ones there are.
 * @throws UnknownRegistry that names what the caller may pull from; as `admit` where it may not pull there
 */
function within<Where>(
  asking: Asking,
  caller: Caller,
  action: Action,
  tag: () => Tag | undefined,
  find: () => Where,
): Where {
  const {access} = asking.door;
  try {
    return find();
  } catch (error) {
    if (!(error instanceof UnknownRegistry)) throw error;
    admit(access.disclosure({...error.place, tag: tag()}, caller, action), caller, asking);
    const {all} = asking.request.registries;
    throw error.naming(all.filter((registry) => access.visibleRepositories(registry, caller)));
  }
}

const isMirror = ({registry}: Route): boolean => registry.push.mode === 'deny';

/** What the login of a request has to pass, where the upstream decides about it. */
const ownCheck = (asking: Asking): OwnLoginCheck => ({
  address: asking.request.origin.client,
  ownLogins: asking.door.ownLogins,
  challenge: asking.own && ((message, error) => challenged(asking, message, error)),
});

/** The tag in the path. @throws OciError for what is neither a tag nor a digest, whoever asks */
function tagIn({params: {reference: text}}: Request): Tag | undefined {
  if (text === undefined) return undefined;
  const reference = parseReference(text);
  return isDigestReference(reference) ? undefined : reference;
}

type Routed = Pick<Exchange, 'registry' | 'repository' | 'namespace'>;

/** The repository that a request names. */
function routed(request: Request, exchange: Routed): Route {
  const ns = singleParameter(request, 'ns');
  const host = headerOf(request, 'host');
  const route = routeOf(request.registries, {name: request.params['name'] ?? '', ns, host});
  exchange.registry = route.registry.name;
  exchange.repository = route.repository.name;
  return route;
}

/** For a request that names no repository: the registry that `ns` names, else the one that its host means. */
function registryAsked(request: Request, exchange: Routed): Registry | undefined {
  const ns = singleParameter(request, 'ns');
  const registry = registryOf(request.registries, {ns, host: headerOf(request, 'host')});
  exchange.registry = registry?.name;
  return registry;
}

/**
 * Whether the repository's registry takes pushes; false where the request leads to none. Whoever may not pull there hears
 * yes: nothing of what the configuration has.
 * @param visitor its credential is not known yet
 */
function seemsToTakePushes(
  request: Request,
  exchange: Routed,
  visitor: Caller,
  access: DoorParts['access'],
): boolean {
  try {
    const route = routed(request, exchange);
    return !(isMirror(route) && access.may(route, visitor, 'pull'));
  } catch (error) {
    if (error instanceof OciError) return !access.isOpenTo(visitor);
    throw error;
  }
}
