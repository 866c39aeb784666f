import {createHmac, randomBytes} from 'node:crypto';
import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {createLru} from '../lru.ts';
import {OwnLogin} from '../own-login.ts';
import type {Attempts} from './attempts.ts';
import {LoginRefused} from './authenticator.ts';
import type {LoginSeal} from './login-seal.ts';
import {isRobotSecret} from './robot-secret.ts';

/** A registry whose upstream takes the callers' own logins. */
export interface LoginTarget {
  readonly name: string;
  readonly upstream: {readonly host: string};
}

export interface UserAndPassword {
  readonly username: string;
  readonly password: string;
}

/** What a login makes of a caller. */
export type OwnCaller = Required<Pick<Caller, 'key' | 'login'>>;

/** Logins that callers present for the upstream of a registry. They are not checked here: the upstream does that. */
export interface OwnLogins {
  /** @throws LoginRefused for one that is too long, or is not for an upstream */
  of(target: LoginTarget, given: UserAndPassword): OwnCaller;
  /** The login as text that only this server can read, for a token of ours. */
  seal(target: LoginTarget, given: UserAndPassword): Promise<string>;
  /**
   * @throws LoginRefused for a login that was sealed for another registry, or for an upstream that the registry no longer
   * has, or cannot be read any more
   */
  open(target: LoginTarget, sealed: string): Promise<OwnCaller>;
  /**
   * Runs what asks the upstream with a login. While it is not known to be right, failures are limited for each address.
   * It is known to be right once the upstream was sent it and accepted it, until the upstream refuses it.
   * @param isRefused whether the result says that the upstream refuses the login itself
   * @throws OciError TOOMANYREQUESTS; what `ask` throws
   */
  attempt<T>(login: AttemptedLogin, ask: () => Promise<T>, isRefused: (result: T) => boolean): Promise<T>;
}

export interface AttemptedLogin extends Pick<Caller, 'key' | 'login'> {
  /** The client's, where known. */
  readonly address: string | undefined;
}

export interface OwnLoginsParts {
  seal: LoginSeal;
  attempts: Attempts;
  clock: Pick<Clock, 'after'>;
  events: Events;
}

/** In UTF-8. Sealed into a token, a longer one would not fit into the headers of a request. */
const MAX_LOGIN_BYTES = 4096;
/** Logins that are known to be right. */
const MAX_PROVEN = 100_000;
/**
 * For so long an attempt counts as running. A slow upstream does not make the other callers of the address wait for
 * longer; a failure counts whenever it comes.
 */
const MAX_RUNNING_MS = 1000;
/** For metrics and events, as the names of login methods are. */
const METHOD = 'upstream';

export const createOwnLogins = (parts: OwnLoginsParts): OwnLogins => new UncheckedLogins(parts);

class UncheckedLogins implements OwnLogins {
  readonly #parts: OwnLoginsParts;
  /** Of no use outside this process: nothing that is derived from a login can be compared with one elsewhere. */
  readonly #key = randomBytes(32);
  readonly #proven = createLru<string, true>(MAX_PROVEN);

  constructor(parts: OwnLoginsParts) {
    this.#parts = parts;
  }

  of({name, upstream}: LoginTarget, given: UserAndPassword): OwnCaller {
    const {username, password} = given;
    if (Buffer.byteLength(username) + Buffer.byteLength(password) > MAX_LOGIN_BYTES)
      throw new LoginRefused(`the user name and the password have more than ${MAX_LOGIN_BYTES} bytes`);
    if (isRobotSecret(password))
      throw new LoginRefused('the password is the token of a robot, which is not for the upstream');
    const key = createHmac('sha256', this.#key).update(
      JSON.stringify([name, upstream.host, username, password]),
    );
    return {key: key.digest('base64url'), login: new OwnLogin(name, upstream.host, given)};
  }

  seal(target: LoginTarget, {username, password}: UserAndPassword): Promise<string> {
    const {name, upstream} = target;
    return this.#parts.seal.close({registry: name, host: upstream.host, username, password});
  }

  async open(target: LoginTarget, sealed: string): Promise<OwnCaller> {
    const found = await this.#parts.seal.open(sealed);
    if (!found) throw new LoginRefused('the login in the token cannot be read any more', {isToken: true});
    if (found.registry !== target.name)
      throw new LoginRefused('the token is for another registry', {isToken: true});
    if (found.host !== target.upstream.host)
      throw new LoginRefused('the token is for another upstream of this registry', {isToken: true});
    return this.of(target, found);
  }

  async attempt<T>(
    attempted: AttemptedLogin,
    ask: () => Promise<T>,
    isRefused: (result: T) => boolean,
  ): Promise<T> {
    const {key, login, address} = attempted;
    const end = this.#proven.has(key) ? undefined : await this.#begin(address);
    let isWrong = false;
    try {
      const result = await ask();
      isWrong = isRefused(result);
      return result;
    } finally {
      end?.();
      if (isWrong) this.#refused(attempted);
      else if (end && login?.isAccepted) this.#accepted(key);
    }
  }

  /** @returns what ends the attempt @throws OciError TOOMANYREQUESTS */
  async #begin(address: string | undefined): Promise<() => void> {
    const {attempts, clock} = this.#parts;
    let end: ((isWrong: boolean) => void) | undefined = await attempts.begin(address);
    const release = (): void => {
      end?.(false);
      end = undefined;
    };
    const cancel = clock.after(MAX_RUNNING_MS, release);
    return () => {
      cancel();
      release();
    };
  }

  #accepted(key: string): void {
    this.#proven.set(key, true);
    this.#parts.events.emit('login.accepted', {method: METHOD});
  }

  #refused({key, address}: AttemptedLogin): void {
    const {attempts, events} = this.#parts;
    this.#proven.delete(key);
    attempts.fail(address);
    events.emit('login.refused', {method: METHOD, reason: 'the upstream refuses the login', client: address});
  }
}
