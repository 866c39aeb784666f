import {readFile} from 'node:fs/promises';
import {isDeepStrictEqual} from 'node:util';
import {createLocalJWKSet, type JSONWebKeySet, type LocalJWKSet} from 'jose';
import type {Clock} from '../clock.ts';
import type {IssuerConfig} from '../config.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import {isRecord} from '../oci/json.ts';
import {DocumentFault, type FetchJson, parseDocument} from './fetch-json.ts';

/** Keys are not read more often, whatever tokens name. A file is read again after this time. */
const MIN_INTERVAL_MS = 10_000;
/** How long keys are used while new ones cannot be read. */
const MAX_STALE_MS = 24 * 60 * 60 * 1000;
const MAX_KEYS = 100;

/** The public keys of an issuer, read when the first token comes. */
export interface IssuerKeys {
  /**
   * The keys that are known now, fresh ones if none are.
   * @throws OciError UNAVAILABLE when none can be read: a token that cannot be verified is not a wrong one
   */
  current(): Promise<LocalJWKSet>;
  /** The keys that `current` gives, and for how many more milliseconds it gives them without another look. */
  held(): {keys: LocalJWKSet; left: number} | undefined;
  /**
   * The keys after another look, for a token that names an unknown one.
   * @returns undefined when the last look was a moment ago
   * @throws OciError UNAVAILABLE when they cannot be read
   */
  newer(): Promise<LocalJWKSet | undefined>;
  /** Reads them again if they are in use. Never rejects. */
  refresh(): Promise<void>;
}

export interface IssuerKeysParts {
  fetchJson: FetchJson;
  /** Called when other keys were read. */
  changed(): void;
  clock: Clock;
  events: Events;
}

/** One look for new keys is shared by all tokens, and tokens whose key is known do not wait for it. */
export const createIssuerKeys = (issuer: IssuerConfig, parts: IssuerKeysParts): IssuerKeys =>
  new CachedKeys(issuer, parts);

class CachedKeys implements IssuerKeys {
  readonly #issuer: IssuerConfig;
  readonly #parts: IssuerKeysParts;
  #known: {set: JSONWebKeySet; keys: LocalJWKSet; at: number} | undefined;
  #reading: Promise<void> | undefined;
  /** When the last look began. */
  #readAt: number | undefined;
  #failed = false;

  constructor(issuer: IssuerConfig, parts: IssuerKeysParts) {
    this.#issuer = issuer;
    this.#parts = parts;
  }

  async current(): Promise<LocalJWKSet> {
    if (this.#ageOf(this.#known?.at) > this.#lasts()) await this.#look();
    if (this.#known && this.#ageOf(this.#known.at) <= MAX_STALE_MS) return this.#known.keys;
    throw this.#unavailable();
  }

  held(): {keys: LocalJWKSet; left: number} | undefined {
    if (!this.#known) return undefined;
    const {keys, at} = this.#known;
    return {keys, left: this.#lasts() - this.#ageOf(at)};
  }

  async newer(): Promise<LocalJWKSet | undefined> {
    const before = this.#known;
    await this.#look();
    if (this.#known && this.#known !== before) return this.#known.keys;
    if (this.#failed) throw this.#unavailable();
    return undefined;
  }

  async refresh(): Promise<void> {
    if (this.#readAt !== undefined) await this.#look();
  }

  /** Milliseconds for which keys that were read are used without another look. */
  #lasts(): number {
    return isFile(this.#issuer) ? MIN_INTERVAL_MS : MAX_STALE_MS;
  }

  #ageOf(moment: number | undefined): number {
    return moment === undefined ? Number.POSITIVE_INFINITY : this.#parts.clock.monotonic() - moment;
  }

  /** Joins a look that is under way; begins one only when the last one is long enough ago. */
  #look(): Promise<void> {
    if (this.#reading) return this.#reading;
    if (this.#ageOf(this.#readAt) < MIN_INTERVAL_MS) return Promise.resolve();
    this.#readAt = this.#parts.clock.monotonic();
    this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    try {
      const set = await readKeySet(this.#issuer, this.#parts.fetchJson);
      const at = this.#parts.clock.monotonic();
      const isSame = this.#known !== undefined && isDeepStrictEqual(this.#known.set, set);
      // What was verified with the same keys need not be verified again.
      const keys = isSame && this.#known ? this.#known.keys : createLocalJWKSet(set);
      this.#known = {set, keys, at};
      this.#failed = false;
      if (!isSame) this.#parts.changed();
    } catch (error) {
      this.#failed = true;
      const age = this.#known && this.#ageOf(this.#known.at);
      this.#parts.events.emit('issuer.failed', {
        issuer: this.#issuer.name,
        reason: error instanceof Error ? error.message : String(error),
        age,
        left: age === undefined ? undefined : Math.max(0, MAX_STALE_MS - age),
      });
    }
  }

  #unavailable(): OciError {
    return new OciError('UNAVAILABLE', {
      message: `the keys of the issuer "${this.#issuer.name}" cannot be read at the moment, so its tokens cannot be verified: try again`,
      headers: {'Retry-After': String(MIN_INTERVAL_MS / 1000)},
    });
  }
}

const isFile = ({jwks}: IssuerConfig): boolean => jwks !== undefined && !/^https?:/i.test(jwks);

/** @throws DocumentFault */
async function readKeySet(issuer: IssuerConfig, fetchJson: FetchJson): Promise<JSONWebKeySet> {
  const {jwks} = issuer;
  if (jwks !== undefined && isFile(issuer)) return keySetIn(parseDocument(await readText(jwks), jwks), jwks);
  const url = jwks ?? (await discover(issuer, fetchJson));
  return keySetIn(await fetchJson(url), url);
}

const readText = (path: string): Promise<string> =>
  readFile(path, 'utf8').catch((error: unknown) => {
    throw new DocumentFault(`${path} cannot be read (${errorCode(error) ?? error})`);
  });

/** Finds the URL of the keys (OpenID Connect Discovery 1.0, sections 4.1 and 4.3). @throws DocumentFault */
async function discover({issuer, insecure}: IssuerConfig, fetchJson: FetchJson): Promise<string> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const document = await fetchJson(url);
  if (!isRecord(document)) throw new DocumentFault(`${url} is not a JSON object`);
  const {issuer: named, jwks_uri: keys} = document;
  if (named !== issuer)
    throw new DocumentFault(`${url} is of the issuer ${JSON.stringify(named)}, not of "${issuer}"`);
  if (typeof keys !== 'string' || !isTrustedUrl(keys, insecure))
    throw new DocumentFault(`${url} has no jwks_uri that begins with https://`);
  return keys;
}

/** Whether what is read from a URL can be trusted: over HTTPS, from this machine, or where the operator says so. */
function isTrustedUrl(text: string, insecure: boolean): boolean {
  const url = URL.parse(text);
  if (url?.protocol === 'https:') return true;
  return (
    url?.protocol === 'http:' && (insecure || /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname))
  );
}

/** @throws DocumentFault */
function keySetIn(document: unknown, place: string): JSONWebKeySet {
  const keys = isRecord(document) ? document['keys'] : undefined;
  if (!Array.isArray(keys) || !keys.every(isRecord))
    throw new DocumentFault(`${place} is not a JSON Web Key Set: it must be an object with a list "keys"`);
  if (keys.length > MAX_KEYS)
    throw new DocumentFault(`${place} has ${keys.length} keys, and at most ${MAX_KEYS} are read`);
  return {keys};
}
