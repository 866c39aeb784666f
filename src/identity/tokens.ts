import {decodeJwt, decodeProtectedHeader, type JWTPayload, jwtVerify, SignJWT} from 'jose';
import type {Scope} from '../caller.ts';
import type {Clock} from '../clock.ts';
import {isRecord} from '../oci/json.ts';
import {
  type Credential,
  type HeldIdentity,
  type Identity,
  type LoginMethod,
  LoginRefused,
  type Source,
  type TokenSource,
} from './authenticator.ts';
import type {SigningKey, SigningKeys} from './signing-keys.ts';
import type {Turns} from './turns.ts';
import {createVerdicts} from './verdicts.ts';

/** A token as the token endpoint hands it out. */
export interface IssuedToken {
  readonly token: string;
  /** Milliseconds since the epoch. */
  readonly issuedAt: number;
  /** Seconds from then. */
  readonly expiresIn: number;
}

/**
 * This server's own tokens: signed, short-lived, and bound to what they were issued for. They say who their bearer is;
 * what it may do is decided with each request.
 */
export interface Tokens extends LoginMethod {
  /** @param scopes what the token is for */
  issue(identity: Identity, scopes: readonly Scope[]): Promise<IssuedToken>;
  /**
   * A token that is good for nothing but the next access token.
   * @returns undefined for a credential that is checked once, and for nobody
   */
  issueRefresh(identity: Identity): Promise<string | undefined>;
  /** Who has a refresh token. @throws LoginRefused where it is not valid, or no longer */
  refresh(token: string): Promise<Identity>;
}

export interface TokensParts {
  keys: SigningKeys;
  /** The name of this service: tokens of others are refused. */
  service: string;
  /** Milliseconds for which an access token is valid. */
  ttl: number;
  /** What issued tokens depend on: a revoked secret ends its tokens, and so does an issuer that is trusted no more. */
  sources: readonly TokenSource[];
  /** Those of verifying signatures. */
  turns: Turns;
  clock: Pick<Clock, 'now'>;
}

/** The longest life of a token, in milliseconds: `docker login` keeps a refresh token for that long. */
export const REFRESH_TTL_MS = 90 * 24 * 60 * 60 * 1000;

const ISSUER = 'backref';
const ACCESS = 'backref-access+jwt';
const REFRESH = 'backref-refresh+jwt';
/** Machines that share the keys have clocks that differ a little. */
const LEEWAY_MS = 10_000;
/** A longer one was not issued here. */
const MAX_LENGTH = 16 * 1024;

export const createTokens = (parts: TokensParts): Tokens => new SignedTokens(parts);

/** A token whose signature was verified. */
interface Verified {
  /** Milliseconds since the epoch. */
  readonly expires: number;
  /** Who its bearer was, and what the token is for. */
  readonly own: Identity;
  readonly source: Source | undefined;
  /** Who its bearer is, as it was recalled last. */
  made?: {of: Identity; identity: Identity};
}

class SignedTokens implements Tokens {
  readonly name = 'token';
  readonly isRoutine = true;
  readonly #keys: SigningKeys;
  readonly #service: string;
  readonly #ttl: number;
  readonly #sources: ReadonlyMap<string, TokenSource>;
  readonly #turns: Turns;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #verified = createVerdicts<Verified>();

  constructor({keys, service, ttl, sources, turns, clock}: TokensParts) {
    this.#keys = keys;
    this.#service = service;
    this.#ttl = ttl;
    this.#sources = new Map(sources.map((source) => [source.name, source]));
    this.#turns = turns;
    this.#clock = clock;
  }

  /** Who has no other credential cannot get a token of somebody. */
  isOpen(): boolean {
    return false;
  }

  owns(secret: string): boolean {
    return isOurs(secret);
  }

  async issue(identity: Identity, scopes: readonly Scope[]): Promise<IssuedToken> {
    const issuedAt = this.#clock.now();
    const ends = Math.min(issuedAt + this.#ttl, identity.until ?? Number.POSITIVE_INFINITY);
    const token = await this.#sign(ACCESS, identity, {issuedAt, ends}, {access: scopes});
    return {token, issuedAt, expiresIn: Math.floor((ends - issuedAt) / 1000)};
  }

  async issueRefresh(identity: Identity): Promise<string | undefined> {
    const source = identity.source && this.#sources.get(identity.source.method);
    if (!source || source.isCheckedOnce) return undefined;
    const issuedAt = this.#clock.now();
    const ends = Math.min(issuedAt + REFRESH_TTL_MS, identity.until ?? Number.POSITIVE_INFINITY);
    return this.#sign(REFRESH, identity, {issuedAt, ends}, {});
  }

  async refresh(token: string): Promise<Identity> {
    const payload = isOurs(token) ? await this.#verify(token, REFRESH) : undefined;
    const verified = payload && readPayload(payload);
    const identity = verified && this.#identityOf(verified);
    if (identity) return identity;
    const claimed = verified?.own.names[0];
    throw new LoginRefused('the refresh token is not valid any more; log in again', {claimed});
  }

  async check({scheme, secret}: Credential): Promise<Identity | undefined> {
    if (scheme !== 'bearer') return undefined;
    const verified = this.#verified.get(secret) ?? (isOurs(secret) ? await this.#read(secret) : undefined);
    if (!verified) return undefined;
    if (verified.expires <= this.#clock.now()) {
      this.#verified.delete(secret);
      throw refused('has expired', verified);
    }
    const identity = this.#identityOf(verified);
    if (!identity) throw refused('was issued for a login that is no longer valid', verified);
    return identity;
  }

  remembered({scheme, secret}: Pick<Credential, 'scheme' | 'secret'>): HeldIdentity | undefined {
    const verified = scheme === 'bearer' ? this.#verified.get(secret) : undefined;
    const identity = verified && this.#identityOf(verified);
    if (!identity) return undefined;
    return {identity, until: Math.min(verified.expires, identity.until ?? Number.POSITIVE_INFINITY)};
  }

  async #read(token: string): Promise<Verified> {
    const payload = await this.#verify(token, ACCESS);
    if (!payload) throw refused('is not valid, or has expired');
    const verified = readPayload(payload);
    this.#verified.set(token, verified);
    return verified;
  }

  #identityOf(verified: Verified): Identity | undefined {
    const {own, source} = verified;
    if (!source) return own;
    const now = this.#sources.get(source.method)?.recall?.(own, source.id);
    if (!now) return undefined;
    const {scopes, sealed} = own;
    if (verified.made?.of !== now)
      verified.made = {of: now, identity: {...now, scopes, ...(sealed === undefined ? {} : {sealed})}};
    return verified.made.identity;
  }

  /** @param times in milliseconds since the epoch */
  async #sign(
    type: string,
    {names, source, sealed}: Identity,
    times: {issuedAt: number; ends: number},
    claims: JWTPayload,
  ): Promise<string> {
    const {id, algorithm, privateKey} = await this.#keys.current();
    return new SignJWT({...claims, names, source, sealed})
      .setProtectedHeader({alg: algorithm, kid: id, typ: type})
      .setIssuer(ISSUER)
      .setAudience(this.#service)
      .setSubject(names[0])
      .setIssuedAt(Math.floor(times.issuedAt / 1000))
      .setNotBefore(Math.floor((times.issuedAt - LEEWAY_MS) / 1000))
      .setExpirationTime(Math.floor(times.ends / 1000))
      .sign(privateKey);
  }

  /** The algorithm is the key's own, whatever the token says. @returns undefined for a token that is not valid */
  async #verify(token: string, type: string): Promise<JWTPayload | undefined> {
    if (token.length > MAX_LENGTH) return undefined;
    const key = await this.#keyOf(token);
    if (!key) return undefined;
    const options = {
      algorithms: [key.algorithm],
      issuer: ISSUER,
      audience: this.#service,
      typ: type,
      requiredClaims: ['exp', 'nbf', 'sub'],
      currentDate: new Date(this.#clock.now()),
    };
    return this.#turns.run(async () => {
      try {
        return (await jwtVerify(token, key.publicKey, options)).payload;
      } catch {
        return undefined;
      }
    });
  }

  async #keyOf(token: string): Promise<SigningKey | undefined> {
    const {kid} = decodeProtectedHeader(token);
    return kid === undefined ? undefined : this.#keys.find(kid);
  }
}

const refused = (why: string, verified?: Verified): LoginRefused =>
  new LoginRefused(`the token ${why}`, {isToken: true, claimed: verified?.own.names[0]});

/** Whether a secret says that it is a token of ours. True or not, no other method is asked about it then. */
function isOurs(secret: string): boolean {
  try {
    decodeProtectedHeader(secret);
    return decodeJwt(secret).iss === ISSUER;
  } catch {
    return false;
  }
}

/** What we have signed has the shape that we gave it. */
function readPayload({exp = 0, names, access, source, sealed}: JWTPayload): Verified {
  return {
    expires: exp * 1000,
    own: {
      names: names as Identity['names'],
      scopes: (access ?? []) as Scope[],
      ...(typeof sealed === 'string' ? {sealed} : {}),
    },
    source: isRecord(source) ? (source as unknown as Source) : undefined,
  };
}
