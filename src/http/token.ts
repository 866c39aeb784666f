import {ANONYMOUS, isAnonymous, type Scope} from '../caller.ts';
import type {Authenticator, Credential, Identity} from '../identity/authenticator.ts';
import type {OwnLogins, UserAndPassword} from '../identity/own-logins.ts';
import {parseScope} from '../identity/scopes.ts';
import type {Tokens} from '../identity/tokens.ts';
import {OciError} from '../oci/errors.ts';
import type {Answer, Handler} from './answer.ts';
import {readWhole} from './body.ts';
import {
  type PassthroughRegistry,
  passthroughAt,
  passthroughNamed,
  requireAccepted,
  userIn,
} from './passthrough.ts';
import type {Request} from './request.ts';

/** How clients log in. */
export interface Login {
  /** Checks passwords and other people's tokens; not tokens of ours, or they could be prolonged for ever. */
  credentials: Authenticator;
  tokens: Tokens;
  /** The name of this service. */
  service: string;
  /** Logins that are for the upstream of a registry. */
  ownLogins: OwnLogins;
}

/** Scopes that one token is for: a client that mounts blobs from other repositories asks for several. */
const MAX_SCOPES = 100;
/** With longer ones, a token would not fit into the headers of a request. */
const MAX_SCOPES_LENGTH = 4096;

/** What a client asks a token for. */
interface Wanted {
  readonly identity: Identity;
  readonly scopes: readonly Scope[];
  /** It also wants a token with which it gets the next one without its user's password. */
  readonly isOffline: boolean;
}

/** `GET /token`, with Basic credentials or without any (Docker token protocol, "Token Authentication"). */
export const getToken =
  (login: Login): Handler<undefined> =>
  async (request) => {
    const {query, headers, origin, entrance} = request;
    const {authorization} = headers;
    const {certificate} = entrance;
    const parameters = fieldsOf(query);
    const registry = registryFor(request, parameters, login);
    const presented = {authorization, address: origin.client, certificate};
    const own = registry && userIn(authorization);
    const identity = await (own
      ? forUpstream(registry, own, request, login)
      : login.credentials.identify(presented));
    const isOffline = parameters.get('offline_token') === 'true';
    return issued({identity, scopes: scopesIn(parameters), isOffline}, login);
  };

/** `POST /token`, with a form (the protocol's "OAuth2 Token Authentication"; RFC 6749, sections 4.3 and 6). */
export const postToken =
  (login: Login): Handler<undefined> =>
  async (request) => {
    const form = await formOf(request);
    const registry = registryFor(request, form, login);
    const identity = await identityIn(form, registry, request, login);
    const isOffline = form.get('access_type') === 'offline';
    return issued({identity, scopes: scopesIn(form), isOffline}, login);
  };

async function issued({identity, scopes, isOffline}: Wanted, {tokens}: Login): Promise<Answer> {
  const {token, issuedAt, expiresIn} = await tokens.issue(identity, scopes);
  // A login that passes through is not stored for longer than a token lives.
  const mayRefresh = isOffline && !isAnonymous(identity) && identity.sealed === undefined;
  const refresh = mayRefresh ? await tokens.issueRefresh(identity) : undefined;
  const body = {
    token,
    access_token: token,
    token_type: 'Bearer',
    expires_in: expiresIn,
    issued_at: new Date(issuedAt).toISOString(),
    ...(refresh === undefined ? {} : {refresh_token: refresh}),
  };
  return {
    status: 200,
    headers: {'Content-Type': 'application/json', 'Cache-Control': 'no-store'},
    body: Buffer.from(JSON.stringify(body)),
    caller: identity.names[0],
  };
}

function identityIn(
  form: URLSearchParams,
  registry: PassthroughRegistry | undefined,
  request: Request,
  login: Login,
): Promise<Identity> {
  const {credentials, tokens} = login;
  const grant = form.get('grant_type');
  switch (grant) {
    case 'password': {
      const username = form.get('username') ?? '';
      const password = form.get('password') ?? '';
      if (registry) return forUpstream(registry, {username, password}, request, login);
      const credential: Credential = {
        scheme: 'basic',
        username,
        secret: password,
        address: request.origin.client,
      };
      return credentials.check(credential);
    }
    case 'refresh_token':
      return tokens.refresh(form.get('refresh_token') ?? '');
    default:
      throw malformed(`grant_type is "${(grant ?? '').slice(0, 40)}"; it must be password or refresh_token`);
  }
}

/**
 * The registry whose upstream the login is for, where that takes the callers' own: the one that the service names, as a
 * challenge of ours does, else the one that the host means.
 * @throws OciError for another service: its token would be of no use to the client, or to whom it was meant for
 */
function registryFor(
  request: Request,
  parameters: URLSearchParams,
  {service}: Login,
): PassthroughRegistry | undefined {
  const {registries} = request;
  const asked = parameters.get('service');
  if (asked === null || asked === service) return passthroughAt(registries, request);
  const named = passthroughNamed(registries, service, asked);
  if (named) return named;
  throw malformed(`tokens are issued for the service "${service}", not for "${asked.slice(0, 80)}"`);
}

/**
 * Nobody, with a login that only the registry's upstream knows. While that cannot be asked, the token is issued all the same:
 * whoever was approved before may have what is stored.
 * @throws LoginRefused where the upstream refuses it; OciError TOOMANYREQUESTS
 */
async function forUpstream(
  registry: PassthroughRegistry,
  given: UserAndPassword,
  {origin: {client: address}, entrance: {certificate}}: Request,
  {ownLogins, credentials}: Login,
): Promise<Identity> {
  const caller = {...ANONYMOUS, ...ownLogins.of(registry, given)};
  await requireAccepted(registry, caller, {address, ownLogins});
  const identity = await credentials.identify({authorization: undefined, address, certificate});
  return {...identity, sealed: await ownLogins.seal(registry, given)};
}

/** Scopes in one parameter are separated by spaces. What cannot be read is left out. */
function scopesIn(parameters: URLSearchParams): readonly Scope[] {
  const texts = parameters.getAll('scope').flatMap((text) => text.split(' ').filter((part) => part !== ''));
  if (texts.length > MAX_SCOPES)
    throw malformed(`${texts.length} scopes are asked for; one token is for at most ${MAX_SCOPES}`);
  if (texts.join(' ').length > MAX_SCOPES_LENGTH)
    throw malformed(`the scopes have more than ${MAX_SCOPES_LENGTH} characters; ask for fewer at a time`);
  return texts.flatMap((text) => parseScope(text) ?? []);
}

const fieldsOf = (query: Request['query']): URLSearchParams =>
  new URLSearchParams(
    Object.entries(query).flatMap(([name, value]) =>
      [value ?? []].flat().map((text): [string, string] => [name, text]),
    ),
  );

async function formOf({body, headers}: Request): Promise<URLSearchParams> {
  const [type = ''] = (headers['content-type'] ?? '').split(';');
  if (type.trim().toLowerCase() !== 'application/x-www-form-urlencoded')
    throw malformed('the body must be a form: Content-Type: application/x-www-form-urlencoded', 415);
  const {maxForm} = body;
  const tooLarge = () =>
    new OciError('UNSUPPORTED', {
      status: 413,
      message: `the form is longer than the ${maxForm} bytes that limits.bodies.maxForm allows`,
      limit: 'limits.bodies.maxForm',
    });
  const bytes = await readWhole(body, {maxBytes: maxForm, code: 'UNSUPPORTED', tooLarge});
  return new URLSearchParams(bytes.toString());
}

const malformed = (message: string, status = 400): OciError => new OciError('UNSUPPORTED', {status, message});
