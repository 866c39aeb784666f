import {type Action, type Caller, isAnonymous} from '../caller.ts';
import type {RequestKind} from '../events.ts';
import {
  type Authenticator,
  type Identity,
  LoginRefused,
  type Presented,
  parseAuthorization,
} from '../identity/authenticator.ts';
import type {OwnCaller, OwnLogins, UserAndPassword} from '../identity/own-logins.ts';
import {type ErrorCode, OciError} from '../oci/errors.ts';
import {type Approvals, isLoginRefused, type LoginAnswer, type Wanted} from '../registry/approvals.ts';
import {toOciErrors} from '../registry/failure.ts';
import type {Route} from '../registry/namespace.ts';
import {type Decision, denial} from '../registry/place-access.ts';
import type {Registries, Registry} from '../registry/registries.ts';
import {digestInPath, headerOf, type Request, referenceInPath} from './request.ts';

/** A registry whose upstream takes the callers' own logins. */
export type PassthroughRegistry = Registry & {readonly approvals: Approvals};

const isPassthrough = (registry: Registry): registry is PassthroughRegistry =>
  registry.approvals !== undefined;

/**
 * The registry that a login at this host is for, if its upstream takes the callers' own. Clients keep one login for each
 * host: what they keep for any other host is not for this registry, and is never sent to its upstream.
 */
export function passthroughAt(
  registries: Registries,
  request: Pick<Request, 'headers'>,
): PassthroughRegistry | undefined {
  const host = headerOf(request, 'host');
  const registry = host === undefined ? undefined : registries.hosted(host);
  return registry && isPassthrough(registry) ? registry : undefined;
}

/**
 * The registry that a login in the request is for: the one that the host means, if the request leads there.
 * @param lead finds where it leads to
 */
export function ownRegistry(
  request: Request,
  lead: () => Registry | undefined,
): PassthroughRegistry | undefined {
  const own = passthroughAt(request.registries, request);
  return own && leadsTo(lead) === own ? own : undefined;
}

/** undefined where the request leads to no registry. */
function leadsTo(lead: () => Registry | undefined): Registry | undefined {
  try {
    return lead();
  } catch (error) {
    if (error instanceof OciError) return undefined;
    throw error;
  }
}

/** What tokens for such a registry are for, to clients: they repeat it where they ask for one, whatever host that is. */
export const passthroughService = (service: string, {name}: Pick<Registry, 'name'>): string =>
  `${service}/${name}`;

/** The registry that such a service names. */
export const passthroughNamed = (
  {all}: Registries,
  service: string,
  named: string,
): PassthroughRegistry | undefined =>
  all.filter(isPassthrough).find((registry) => passthroughService(service, registry) === named);

/** The user name and the password of Basic credentials. @throws LoginRefused for a header that cannot be read */
export function userIn(authorization: string | undefined): UserAndPassword | undefined {
  if (authorization === undefined) return undefined;
  const {username, secret} = parseAuthorization(authorization);
  const isEmpty = username === undefined || (username === '' && secret === '');
  return isEmpty ? undefined : {username, password: secret};
}

/** Who asks such a registry. */
interface Visitor extends Pick<Identity, 'names' | 'bound' | 'scopes'> {
  /** What the login makes of it; undefined without one. */
  readonly own: OwnCaller | undefined;
}

export interface OwnLoginParts {
  authenticator: Authenticator;
  ownLogins: OwnLogins;
}

/**
 * Who asks a registry whose upstream takes the callers' own logins. Basic credentials are for the upstream, and are not
 * looked at here; a token of ours may hold them.
 * @throws LoginRefused for any other credential that is not valid here
 */
export async function visitorOf(
  registry: PassthroughRegistry,
  presented: Presented,
  {authenticator, ownLogins}: OwnLoginParts,
): Promise<Visitor> {
  const given = userIn(presented.authorization);
  const withoutPassword = given ? {...presented, authorization: undefined} : presented;
  const identity = await authenticator.identify(withoutPassword);
  if (given) return {...identity, own: ownLogins.of(registry, given)};
  const {sealed, scopes} = identity;
  if (sealed !== undefined) return {...identity, own: await ownLogins.open(registry, sealed)};
  const isUnknown = presented.authorization !== undefined && isAnonymous(identity) && scopes === undefined;
  if (isUnknown) throw new LoginRefused('the bearer token is not one that is valid here', {isToken: true});
  return {...identity, own: undefined};
}

/**
 * Whether the upstream accepts a login. While it cannot be asked, nothing is known against the login.
 * @throws LoginRefused; OciError TOOMANYREQUESTS
 */
export async function requireAccepted(
  {approvals}: PassthroughRegistry,
  caller: Caller,
  {address, ownLogins}: {address: string | undefined; ownLogins: OwnLogins},
): Promise<void> {
  const isRefused = (answer: LoginAnswer) => answer === 'refused';
  const answer = await ownLogins.attempt({...caller, address}, () => approvals.login(caller), isRefused);
  if (answer === 'refused') throw new LoginRefused(LOGIN_REFUSED);
}

export const NEEDS_LOGIN = 'authentication required';
const LOGIN_REFUSED = 'the upstream refuses the user name or the password';

/** What decides about a login for an upstream. */
export interface OwnLoginCheck {
  /** The client's, where known. */
  readonly address: string | undefined;
  readonly ownLogins: OwnLogins;
  /** The answer that leads the client to log in; undefined where a login would not be for this registry. */
  readonly challenge: ((message: string, error?: 'invalid_token') => OciError) | undefined;
}

/** @throws OciError UNAUTHORIZED where the upstream refuses a login; TOOMANYREQUESTS */
export async function requireLogin(
  registry: PassthroughRegistry,
  caller: Caller,
  {address, ownLogins, challenge}: OwnLoginCheck,
): Promise<void> {
  try {
    await requireAccepted(registry, caller, {address, ownLogins});
  } catch (error) {
    throw error instanceof LoginRefused ? (challenge?.(error.message, 'invalid_token') ?? error) : error;
  }
}

/**
 * Asks the upstream about a caller, where that is asked with each caller's own login: whether it may pull, wherever what is
 * stored here may answer the request. A deletion may, because what the upstream no longer has is deleted here as well. Every
 * other write is the upstream's to allow; but nobody writes without a login, so that clients learn that they need one before
 * they have sent anything.
 * @throws OciError UNAUTHORIZED where a login is missing or refused, DENIED or NAME_UNKNOWN where the upstream says so,
 * UNAVAILABLE while it cannot be asked, TOOMANYREQUESTS
 */
export async function admitOwn(
  route: Route,
  caller: Caller,
  {request, action, kind}: {request: Request; action: Action; kind: RequestKind},
  check: OwnLoginCheck,
): Promise<void> {
  const {registry} = route;
  if (!isPassthrough(registry)) return;
  if (action !== 'pull' && check.challenge) {
    if (!caller.login) throw check.challenge(NEEDS_LOGIN);
    await requireLogin(registry, caller, check);
  }
  if (action === 'pull' || action === 'delete')
    await requireApproval(registry, route, {caller, wanted: wantedBy(request, kind)}, check);
}

/** Nothing that is stored here changes the answer. */
async function requireApproval(
  {approvals}: PassthroughRegistry,
  route: Route,
  {caller, wanted}: {caller: Caller; wanted: Wanted},
  {address, ownLogins, challenge}: OwnLoginCheck,
): Promise<void> {
  const ask = () => approvals.decide(route.repository.name, caller, wanted);
  await toOciErrors(route, async () => {
    const decision = caller.login
      ? await ownLogins.attempt({...caller, address}, ask, isRefusal)
      : await ask();
    if (decision.verdict === 'unknown') throw notShown(route, wanted);
    if (decision.verdict === 'allowed') return;
    if (challenge && !caller.login) throw challenge(NEEDS_LOGIN);
    if (challenge && isLoginRefused(decision)) throw challenge(LOGIN_REFUSED, 'invalid_token');
    throw denial(decision);
  });
}

/** What is not there, or is not for this caller, does not say whether a login is right. */
const isRefusal = (decision: Decision): boolean => decision.verdict === 'denied' && isLoginRefused(decision);

const NOT_SHOWN: Record<Wanted['kind'], ErrorCode> = {
  manifest: 'MANIFEST_UNKNOWN',
  blob: 'BLOB_UNKNOWN',
  referrers: 'NAME_UNKNOWN',
  tags: 'NAME_UNKNOWN',
};

/** The same for everything that the upstream does not show to the caller, whatever is stored here. */
const notShown = ({registry, asked}: Route, {kind}: Wanted): OciError =>
  new OciError(NOT_SHOWN[kind], {
    message: `${registry.upstream.host} does not have this in ${asked}, or does not show it to you`,
    detail: {name: asked, upstream: registry.upstream.host},
  });

/** What a request to pull is for. @throws OciError for a reference or a digest that cannot be read */
function wantedBy(request: Request, kind: RequestKind): Wanted {
  switch (kind) {
    case 'manifest':
      return {kind, reference: referenceInPath(request)};
    case 'blob':
      return {kind, digest: digestInPath(request)};
    case 'referrers':
      return {kind, subject: digestInPath(request)};
    default:
      return {kind: 'tags'};
  }
}
