import type {Scope} from '../caller.ts';
import {formatScope} from '../identity/scopes.ts';
import {OciError} from '../oci/errors.ts';
import type {Registry} from '../registry/registries.ts';
import type {Origin} from './forwarded.ts';
import {passthroughService} from './passthrough.ts';

/** Where clients log in. */
export interface LoginPlace {
  /** What the tokens are for: the name of this service, to itself and to its clients. */
  readonly service: string;
  /** The URL of the token endpoint; undefined for the one at the host that the client asked. */
  readonly realm: string | undefined;
}

/** Why a client has to log in. */
export interface Unauthorized {
  readonly message: string;
  /** What the request needs a token for. */
  readonly scope: Scope | undefined;
  /** The registry that the login is for, where its upstream takes the callers' own. */
  readonly registry?: Registry | undefined;
  /** What is wrong with the token that it brought (RFC 6750, section 3.1). */
  readonly error?: 'invalid_token' | 'insufficient_scope' | undefined;
}

/** The path of the token endpoint. */
export const TOKEN_PATH = '/token';

/** 401 with a challenge, which says where to get which token (Docker token protocol; RFC 6750, section 3). */
export const unauthorized = (why: Unauthorized, {host, scheme}: Origin, place: LoginPlace): OciError => {
  const realm = place.realm ?? (host === undefined ? undefined : `${scheme}://${host}${TOKEN_PATH}`);
  return new OciError('UNAUTHORIZED', {
    message: why.message,
    headers: {'WWW-Authenticate': challenge(realm, serviceFor(why, place), why)},
  });
};

/** The same where clients log in, and need no token to do so. */
export const wrongLogin = (message: string, {service}: LoginPlace): OciError =>
  new OciError('UNAUTHORIZED', {message, headers: {'WWW-Authenticate': basicChallenge(service)}});

const basicChallenge = (service: string): string => `Basic realm="${service}", charset="UTF-8"`;

const serviceFor = ({registry}: Unauthorized, {service}: LoginPlace): string =>
  registry ? passthroughService(service, registry) : service;

/** Only one scheme: some clients that are offered both send both. Without a host there is no URL to send them to. */
function challenge(realm: string | undefined, service: string, {scope, error}: Unauthorized): string {
  if (realm === undefined) return basicChallenge(service);
  const parameters = [
    `realm="${realm}"`,
    `service="${service}"`,
    ...(scope ? [`scope="${quotable(formatScope(scope))}"`] : []),
    ...(error ? [`error="${error}"`] : []),
  ];
  return `Bearer ${parameters.join(',')}`;
}

/** The name in a scope is the client's own text. What a quoted string cannot hold is in no name that exists. */
const quotable = (text: string): string => text.replaceAll(/[^\x21\x23-\x5b\x5d-\x7e]/g, '');
