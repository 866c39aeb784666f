import {createHash} from 'node:crypto';
import {isDeepStrictEqual} from 'node:util';
import {
  type CryptoKey,
  decodeJwt,
  decodeProtectedHeader,
  errors,
  type JWTVerifyResult,
  jwtVerify,
  type LocalJWKSet,
} from 'jose';
import type {Clock} from '../clock.ts';
import type {IssuerConfig} from '../config.ts';
import type {Events} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import type {Attempts} from './attempts.ts';
import {type Identity, type LoginMethod, LoginRefused} from './authenticator.ts';
import {ClaimFault, demandClaims, namesOf} from './claims.ts';
import {createFetchJson} from './fetch-json.ts';
import {createIssuerKeys, type IssuerKeys} from './jwks.ts';
import type {Turns} from './turns.ts';
import {createVerdicts} from './verdicts.ts';

/** How far the clocks of an issuer and of this machine may differ. */
const LEEWAY_S = 30;
/** Longer ones do not fit into a request's headers. */
const MAX_TOKEN_LENGTH = 16 * 1024;
const JWT = /^[\w-]+\.[\w-]+\.[\w-]*$/;
const METHOD = 'issuer';

/** Logs in with the JWTs of the configured issuers, as the password of any user or as a bearer token. */
export interface Issuers extends LoginMethod {
  /** Reads the keys again of those issuers whose tokens were seen. Never rejects. */
  refresh(): Promise<void>;
}

export interface IssuersParts {
  /** For the proxy variables. */
  env: NodeJS.ProcessEnv;
  attempts: Attempts;
  /** Those of verifying signatures. */
  turns: Turns;
  /** Called when other keys of an issuer are in use. */
  changed(): void;
  clock: Clock;
  events: Events;
}

/** An issuer of the configuration. */
interface KnownIssuer {
  /** Changes with its settings. */
  readonly id: string;
  readonly config: IssuerConfig;
  readonly keys: IssuerKeys;
}

/** By their `iss`. */
type KnownIssuers = ReadonlyMap<string, KnownIssuer>;

/** A token that was verified. It counts while the same settings and the same keys do, and until the token ends. */
interface VerifiedJwt {
  readonly identity: Identity;
  readonly issuer: KnownIssuer;
  readonly keys: LocalJWKSet;
  /** Milliseconds since the epoch. */
  readonly ends: number;
}

/**
 * @param configs those in force, each with another `issuer`; when they change, the keys of issuers that stay as they are
 * stay known
 */
export function createIssuers(configs: () => readonly IssuerConfig[], parts: IssuersParts): Issuers {
  let adopted = configs();
  let issuers = keysOf(adopted, new Map(), parts);
  const verdicts = createVerdicts<VerifiedJwt>();
  const current = (): KnownIssuers => {
    if (adopted !== configs()) {
      adopted = configs();
      issuers = keysOf(adopted, issuers, parts);
    }
    return issuers;
  };
  return {
    name: METHOD,
    isCheckedOnce: true,
    isOpen: () => current().size > 0,
    async check({secret, scheme, address}) {
      // Not yet verified: it only says whose keys verify the token.
      const issuer = current().get(issuerOf(secret) ?? '');
      if (!issuer) return undefined;
      const keys = await issuer.keys.current();
      const known = verdicts.get(secret);
      if (known?.issuer === issuer && known.keys === keys && known.ends > parts.clock.now())
        return known.identity;
      // The issuer may take its time to answer: nothing is counted as running meanwhile.
      const key = await keyFor(secret, issuer, keys).catch(asValue);
      const verified = await parts.attempts.run(address, async () => {
        try {
          if (key instanceof Error) throw key;
          return await verify(secret, issuer, key, parts);
        } catch (error) {
          if (error instanceof OciError) throw error;
          throw new LoginRefused(
            `the token of the issuer "${issuer.config.name}" ${problemOf(error, issuer.config)}`,
            {isToken: scheme === 'bearer', claimed: subjectIn(error, issuer.config)},
          );
        }
      });
      verdicts.set(secret, {...verified, issuer, keys});
      return verified.identity;
    },
    remembered({secret}) {
      const issuer = current().get(issuerOf(secret) ?? '');
      const held = issuer?.keys.held();
      const known = held && verdicts.get(secret);
      if (!known || known.issuer !== issuer || known.keys !== held.keys) return undefined;
      const {identity, ends} = known;
      return {identity, until: Math.min(ends, parts.clock.now() + held.left)};
    },
    recall(own, id) {
      return [...current().values()].some((issuer) => issuer.id === id) ? own : undefined;
    },
    async refresh() {
      await Promise.all([...current().values()].map(({keys}) => keys.refresh()));
    },
  };
}

const keysOf = (
  configs: readonly IssuerConfig[],
  before: KnownIssuers,
  {env, changed, clock, events}: Pick<IssuersParts, 'env' | 'changed' | 'clock' | 'events'>,
): KnownIssuers =>
  new Map(
    configs.map((config) => {
      const same = before.get(config.issuer);
      if (same && isDeepStrictEqual(same.config, config)) return [config.issuer, same];
      const fetchJson = createFetchJson({ca: config.ca, env, clock});
      const id = createHash('sha256').update(JSON.stringify(config)).digest('base64url').slice(0, 16);
      return [
        config.issuer,
        {id, config, keys: createIssuerKeys(config, {fetchJson, changed, clock, events})},
      ];
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

/** A failure to find a key, which counts as an attempt. @throws OciError that the issuer's keys cannot be read */
function asValue(error: unknown): Error {
  if (error instanceof OciError || !(error instanceof Error)) throw error;
  return error;
}

/**
 * The key that a token names, after another look at the issuer's keys if it is a new one.
 * @throws errors of jose; OciError UNAVAILABLE when the keys of the issuer cannot be read
 */
async function keyFor(token: string, {config, keys}: KnownIssuer, known: LocalJWKSet): Promise<CryptoKey> {
  const header = decodeProtectedHeader(token);
  if (!config.algorithms.some((algorithm) => algorithm === header.alg)) throw new errors.JOSEAlgNotAllowed();
  const [protectedHeader = '', payload = '', signature = ''] = token.split('.');
  const named = [
    {...header, alg: header.alg ?? ''},
    {protected: protectedHeader, payload, signature},
  ] as const;
  try {
    return await known(...named);
  } catch (error) {
    if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
    const newer = await keys.newer();
    if (!newer) throw error;
    return newer(...named);
  }
}

/** @throws ClaimFault; errors of jose; OciError UNAVAILABLE when too many tokens wait to be verified */
async function verify(
  token: string,
  {id, config}: KnownIssuer,
  key: CryptoKey,
  {clock, turns}: IssuersParts,
): Promise<Pick<VerifiedJwt, 'identity' | 'ends'>> {
  const {name, issuer, audience, algorithms, require, claims, maxAge} = config;
  const now = clock.now();
  const options = {
    issuer,
    audience: [...audience],
    algorithms: [...algorithms],
    requiredClaims: ['sub', 'exp'],
    clockTolerance: LEEWAY_S,
    currentDate: new Date(now),
    ...(maxAge === undefined ? {} : {maxTokenAge: maxAge / 1000}),
  };
  const {payload}: JWTVerifyResult = await turns.run(() => jwtVerify(token, key, options));
  const {sub, exp = 0, iat = 0} = payload;
  if (typeof sub !== 'string' || sub === '') throw new ClaimFault('has a claim "sub" that is not a text');
  // jose looks at it only when the age is limited.
  if (iat > now / 1000 + LEEWAY_S) throw new ClaimFault('was issued in the future: compare the clocks');
  demandClaims(payload, require);
  const until = (exp + LEEWAY_S) * 1000;
  const ends = maxAge === undefined ? until : Math.min(until, (iat + LEEWAY_S) * 1000 + maxAge);
  return {identity: {names: namesOf(name, payload, claims), until, source: {method: METHOD, id}}, ends};
}

/** The subject of a token whose signature is right, and which is refused for what it says. */
function subjectIn(error: unknown, {name}: IssuerConfig): string | undefined {
  const isSigned = error instanceof errors.JWTExpired || error instanceof errors.JWTClaimValidationFailed;
  const subject = isSigned ? error.payload.sub : undefined;
  return typeof subject === 'string' && /^[^\p{Cc}]{1,256}$/u.test(subject)
    ? `${name}:sub=${subject}`
    : undefined;
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
