import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import type {LoginPlace} from './http/challenge.ts';
import type {Login} from './http/token.ts';
import {type Authenticator, createAuthenticator} from './identity/authenticator.ts';
import {createPasswordCheck} from './identity/bcrypt.ts';
import {createRobots, type Robots} from './identity/robots.ts';
import {createSigningKeys} from './identity/signing-keys.ts';
import {createTokens, REFRESH_TTL_MS} from './identity/tokens.ts';
import {createUsers, type Users} from './identity/users.ts';
import type {Metadata} from './storage/metadata.ts';

/** What finds out who asks. */
export interface WiredIdentity {
  /** For every request: passwords, other people's tokens, and our own. */
  authenticator: Authenticator;
  login: Login;
  loginPlace: LoginPlace;
  users: Users;
  robots: Robots;
}

/** Reads no file until the first login, or until it is told to. */
export function wireIdentity(
  {access, storage}: Pick<Config, 'access' | 'storage'>,
  {metadata, clock, events}: {metadata: Metadata; clock: Clock; events: Events},
): WiredIdentity {
  const {service, ttl, key, realm} = access.tokens;
  const users = createUsers({
    htpasswd: access.users.htpasswd,
    passwords: createPasswordCheck(),
    clock,
    events,
  });
  const robots = createRobots({metadata, clock});
  const methods = [robots, users];
  const keys = createSigningKeys({
    folder: storage.path,
    supplied: key,
    keptFor: REFRESH_TTL_MS,
    clock,
    events,
  });
  const tokens = createTokens({keys, service, ttl, methods, clock});
  return {
    authenticator: createAuthenticator([tokens, ...methods], events),
    login: {credentials: createAuthenticator(methods, events), tokens, service},
    loginPlace: {service, realm},
    users,
    robots,
  };
}
