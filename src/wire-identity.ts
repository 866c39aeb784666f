import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import type {LoginPlace} from './http/challenge.ts';
import type {Login} from './http/token.ts';
import {createAttempts} from './identity/attempts.ts';
import {type Authenticator, createAuthenticator} from './identity/authenticator.ts';
import {createPasswordCheck} from './identity/bcrypt.ts';
import {createCertificates} from './identity/certificates.ts';
import {createIssuers} from './identity/issuers.ts';
import {createLoginSeal} from './identity/login-seal.ts';
import {createOwnLogins, type OwnLogins} from './identity/own-logins.ts';
import {createRobots, type Robots} from './identity/robots.ts';
import {createSigningKeys} from './identity/signing-keys.ts';
import {createTokens, REFRESH_TTL_MS} from './identity/tokens.ts';
import {createSignatureTurns} from './identity/turns.ts';
import {createUsers, type Users} from './identity/users.ts';
import type {Metadata} from './storage/metadata.ts';

/** What finds out who asks. */
export interface WiredIdentity {
  /** For every request: passwords, other people's tokens, and our own. */
  authenticator: Authenticator;
  login: Login;
  /** Logins for the upstreams of registries that take the callers' own. */
  ownLogins: OwnLogins;
  loginPlace: LoginPlace;
  users: Users;
  robots: Robots;
  /** What is done again and again, by milliseconds between. */
  upkeep: readonly {interval: number; task: string; work(): Promise<void>}[];
}

/** How often to see whether the file of users has changed. */
const USERS_INTERVAL_MS = 5000;
/** How often the keys of issuers are read again. */
const ISSUERS_INTERVAL_MS = 10 * 60 * 1000;

export interface IdentityParts {
  /** Those settings that may change while the server runs. */
  logins(): Pick<Config['access'], 'issuers' | 'certificates'>;
  /** For the proxy variables. */
  env: NodeJS.ProcessEnv;
  metadata: Metadata;
  /** Called when a credential may belong to somebody else, or to nobody any more. */
  changed(): void;
  clock: Clock;
  events: Events;
}

/** Reads no file until the first login, or until it is told to. */
export function wireIdentity(
  {access, storage}: Pick<Config, 'access' | 'storage'>,
  {logins, metadata, changed, env, clock, events}: IdentityParts,
): WiredIdentity {
  const {service, ttl, key, realm} = access.tokens;
  const attempts = createAttempts(clock);
  const turns = createSignatureTurns();
  const users = createUsers({
    htpasswd: access.users.htpasswd,
    passwords: createPasswordCheck(),
    attempts,
    changed,
    clock,
    events,
  });
  const robots = createRobots({metadata, attempts, changed, clock});
  const issuers = createIssuers(() => logins().issuers, {env, attempts, turns, changed, clock, events});
  const certificates = createCertificates(() => logins().certificates);
  // A JWT is longer than a password may be.
  const methods = [robots, issuers, users];
  const keys = createSigningKeys({
    folder: storage.path,
    supplied: key,
    keptFor: REFRESH_TTL_MS,
    clock,
    events,
  });
  const tokens = createTokens({keys, service, ttl, sources: [...methods, certificates], turns, clock});
  const credentials = createAuthenticator(methods, events, certificates.identify);
  const ownLogins = createOwnLogins({seal: createLoginSeal(keys), attempts, clock, events});
  return {
    authenticator: createAuthenticator([tokens, ...methods], events, certificates.identify),
    login: {credentials, tokens, service, ownLogins},
    ownLogins,
    loginPlace: {service, realm},
    users,
    robots,
    upkeep: [
      {interval: USERS_INTERVAL_MS, task: 'read the users', work: () => users.refresh()},
      {interval: ISSUERS_INTERVAL_MS, task: 'read the keys of issuers', work: () => issuers.refresh()},
    ],
  };
}
