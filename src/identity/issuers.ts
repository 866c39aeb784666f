import {isDeepStrictEqual} from 'node:util';
import {type CryptoKey, decodeJwt, errors, type JWTVerifyGetKey, jwtVerify} from 'jose';
import type {Clock} from '../clock.ts';
import type {IssuerConfig} from '../config.ts';
import type {Events} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import {type Identity, type LoginMethod, LoginRefused} from './authenticator.ts';
import {ClaimFault, demandClaims, namesOf} from './claims.ts';
import {createFetchJson} from './fetch-json.ts';
import {createIssuerKeys, type IssuerKeys} from './jwks.ts';

/** How far the clocks of an issuer and of this machine may differ. */
const LEEWAY_S = 30;
/** Longer ones do not fit into a request's headers. */
const MAX_TOKEN_LENGTH = 16 * 1024;
const JWT = /^[\w-]+\.[\w-]+\.[\w-]*$/;

/** Logs in with the JWTs of the configured issuers, as the password of any user or as a bearer token. */
export interface Issuers extends LoginMethod {
  /** Reads the keys again of those issuers whose tokens were seen. Never rejects. */
  refresh(): Promise<void>;
}

export interface IssuersParts {
  /** For the proxy variables. */
  env: NodeJS.ProcessEnv;
  clock: Clock;
  events: Events;
}

/**
 * @param configs those in force, each with another `issuer`; when they change, the keys of issuers that stay as they are
 * stay known
 */
export function createIssuers(configs: () => readonly IssuerConfig[], parts: IssuersParts): Issuers {
  let adopted = configs();
  let issuers = keysOf(adopted, new Map(), parts);
  const current = (): KnownIssuers => {
    if (adopted !== configs()) {
      adopted = configs();
      issuers = keysOf(adopted, issuers, parts);
    }
    return issuers;
  };
  return {
    name: 'issuer',
    isOpen: () => current().size > 0,
    async check({secret, scheme}) {
      // Not yet verified: it only says whose keys verify the token.
      const issuer = current().get(issuerOf(secret) ?? '');
      if (!issuer) return undefined;
      try {
        return await verify(secret, issuer.config, issuer.keys, parts.clock);
      } catch (error) {
        if (error instanceof OciError) throw error;
        const problem = problemOf(error, issuer.config);
        throw new LoginRefused(`the token of the issuer "${issuer.config.name}" ${problem}`, {
          isToken: scheme === 'bearer',
        });
      }
    },
    async refresh() {
      await Promise.all([...current().values()].map(({keys}) => keys.refresh()));
    },
  };
}

/** By their `iss`. */
type KnownIssuers = ReadonlyMap<string, {config: IssuerConfig; keys: IssuerKeys}>;

const keysOf = (
  configs: readonly IssuerConfig[],
  before: KnownIssuers,
  {env, clock, events}: IssuersParts,
): KnownIssuers =>
  new Map(
    configs.map((config) => {
      const same = before.get(config.issuer);
      if (same && isDeepStrictEqual(same.config, config)) return [config.issuer, same];
      const fetchJson = createFetchJson({ca: config.ca, env, clock});
      return [config.issuer, {config, keys: createIssuerKeys(config, {fetchJson, clock, events})}];
    }),
  );

/** What a token claims to be issued by; undefined for what is not a JWT. */
function issuerOf(token: string): string | undefined {
  if (token.length > MAX_TOKEN_LENGTH || !JWT.test(token)) return undefined;
  try {
    const {iss} = decodeJwt(token);
    return typeof iss === 'string' ? iss : undefined;
  } catch {
    return undefined;
  }
}

/** @throws ClaimFault; errors of jose; OciError UNAVAILABLE when the keys of the issuer cannot be read */
async function verify(
  token: string,
  {name, issuer, audience, algorithms, require, claims, maxAge}: IssuerConfig,
  keys: IssuerKeys,
  clock: Clock,
): Promise<Identity> {
  const now = clock.now();
  const {payload} = await jwtVerify(token, (...named) => keyFor(keys, ...named), {
    issuer,
    audience: [...audience],
    algorithms: [...algorithms],
    requiredClaims: ['sub', 'exp'],
    clockTolerance: LEEWAY_S,
    currentDate: new Date(now),
    ...(maxAge === undefined ? {} : {maxTokenAge: maxAge / 1000}),
  });
  const {sub, exp = 0, iat = 0} = payload;
  if (typeof sub !== 'string' || sub === '') throw new ClaimFault('has a claim "sub" that is not a text');
  // jose looks at it only when the age is limited.
  if (iat > now / 1000 + LEEWAY_S) throw new ClaimFault('was issued in the future: compare the clocks');
  demandClaims(payload, require);
  return {names: namesOf(name, payload, claims), until: (exp + LEEWAY_S) * 1000};
}

/** The key that a token names, after another look at the issuer's keys if it is a new one. */
async function keyFor(keys: IssuerKeys, ...[header, input]: Parameters<JWTVerifyGetKey>): Promise<CryptoKey> {
  const known = await keys.current();
  try {
    return await known(header, input);
  } catch (error) {
    if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
    const newer = await keys.newer();
    if (!newer) throw error;
    return newer(header, input);
  }
}

/** What is wrong with a token, as the end of a sentence that begins with it. Names no value of it. */
function problemOf(error: unknown, {audience}: IssuerConfig): string {
  if (error instanceof ClaimFault) return error.message;
  if (error instanceof errors.JWTExpired) return error.claim === 'exp' ? 'has expired' : 'is too old';
  if (error instanceof errors.JOSEAlgNotAllowed)
    return 'is signed with an algorithm that is not allowed here';
  if (error instanceof errors.JWKSNoMatchingKey) return 'is signed with a key that its issuer does not list';
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'has a signature that does not match';
  if (!(error instanceof errors.JWTClaimValidationFailed))
    return 'cannot be verified with the keys of its issuer';
  if (error.reason === 'missing') return `has no claim "${error.claim}"`;
  if (error.claim === 'aud') return `is for another audience: request it for ${audience.join(' or ')}`;
  return error.claim === 'nbf' ? 'is not valid yet' : `has a claim "${error.claim}" that is not valid`;
}
