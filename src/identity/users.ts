import {createHash, createHmac, randomBytes} from 'node:crypto';
import {readFile, stat} from 'node:fs/promises';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {createLru} from '../lru.ts';
import type {Attempts} from './attempts.ts';
import {
  type Credential,
  type HeldIdentity,
  type Identity,
  type LoginMethod,
  LoginRefused,
  WRONG_PASSWORD,
} from './authenticator.ts';
import type {PasswordCheck} from './bcrypt.ts';
import {describeFault, type PasswordHashes, parseHtpasswd} from './htpasswd.ts';

/** The users of an htpasswd file, who log in with their passwords. */
export interface Users extends LoginMethod {
  /**
   * Reads the file if it has changed. A file with faults is reported, and the users that were read before stay. The first
   * time, it is refused.
   * @throws Error that says what is wrong with the file, when none was read before
   */
  refresh(): Promise<void>;
}

export interface UsersParts {
  /** The path of the file; undefined without users. */
  htpasswd: string | undefined;
  passwords: PasswordCheck;
  attempts: Attempts;
  /** Called when other users, or other passwords, are in force. */
  changed(): void;
  clock: Clock;
  events: Events;
}

/** bcrypt reads no more of a password. */
const MAX_PASSWORD_BYTES = 72;
/** For so long a password that was right need not be compared again: bcrypt takes tenths of a second. */
const REMEMBERED_MS = 5 * 60_000;
const MAX_REMEMBERED = 10_000;
/** How often a login looks whether the file has changed. */
const LOOK_INTERVAL_MS = 1000;

export const createUsers = (parts: UsersParts): Users => new HtpasswdUsers(parts);

class HtpasswdUsers implements Users {
  readonly name = 'password';
  readonly #path: string | undefined;
  readonly #passwords: PasswordCheck;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #attempts: Attempts;
  readonly #changed: () => void;
  /** What is remembered of passwords is of no use outside this process. */
  readonly #key = randomBytes(32);
  /** When passwords that were right were compared, by what names them. */
  readonly #right = createLru<string, number>(MAX_REMEMBERED);
  readonly #running = new Map<string, Promise<boolean>>();
  #users: PasswordHashes | undefined;
  readonly #identities = new Map<string, Identity>();
  /** Names the version of the file that was read last. */
  #version: string | undefined;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #refreshing: Promise<void> | undefined;
  #reported: string | undefined;

  constructor({htpasswd, passwords, attempts, changed, clock, events}: UsersParts) {
    this.#path = htpasswd;
    this.#passwords = passwords;
    this.#clock = clock;
    this.#events = events;
    this.#attempts = attempts;
    this.#changed = changed;
  }

  isOpen(): boolean {
    return this.#path !== undefined;
  }

  refresh(): Promise<void> {
    this.#refreshing ??= this.#read().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async check({scheme, username = '', secret, address}: Credential): Promise<Identity | undefined> {
    if (scheme !== 'basic' || this.#path === undefined) return undefined;
    refuseUnreadable(secret);
    if (!this.#users || this.#clock.monotonic() - this.#lookedAt >= LOOK_INTERVAL_MS) await this.refresh();
    const hash = this.#users?.get(username);
    if (await this.#matches(username, secret, hash ?? this.#decoy(username), address)) {
      // The file may have changed while the password was compared.
      const identity = this.#users?.get(username) === hash ? this.#identities.get(username) : undefined;
      if (identity) return identity;
    }
    // A name that is not a user's may be a secret that was typed into the wrong field.
    const claimed = hash === undefined ? undefined : `user:${username}`;
    throw new LoginRefused(WRONG_PASSWORD, {claimed});
  }

  remembered({scheme, username = '', secret}: Omit<Credential, 'address'>): HeldIdentity | undefined {
    const hash = scheme === 'basic' ? this.#users?.get(username) : undefined;
    const identity = this.#identities.get(username);
    if (hash === undefined || !identity) return undefined;
    const comparedAt = this.#right.get(this.#keyOf(username, secret, hash)) ?? Number.NEGATIVE_INFINITY;
    // A check looks whether the file has changed, and compares the password again, at these times.
    const ends = Math.min(comparedAt + REMEMBERED_MS, this.#lookedAt + LOOK_INTERVAL_MS);
    const left = ends - this.#clock.monotonic();
    return left > 0 ? {identity, until: this.#clock.now() + left} : undefined;
  }

  recall({names: [name]}: Identity, id: string): Identity | undefined {
    const identity = this.#identities.get(name.slice('user:'.length));
    return identity?.source?.id === id ? identity : undefined;
  }

  async #matches(
    username: string,
    password: string,
    hash: string,
    address: string | undefined,
  ): Promise<boolean> {
    const key = this.#keyOf(username, password, hash);
    const comparedAt = this.#right.get(key);
    if (comparedAt !== undefined && this.#clock.monotonic() - comparedAt < REMEMBERED_MS) return true;
    // Of equal logins at the same time, one is compared.
    const running = this.#running.get(key) ?? this.#compare(key, password, hash, address);
    return running;
  }

  #compare(key: string, password: string, hash: string, address: string | undefined): Promise<boolean> {
    const compare = async () => {
      const end = await this.#attempts.begin(address);
      let isWrong = false;
      try {
        const isRight = await this.#passwords.matches(password, hash);
        isWrong = !isRight;
        if (isRight) this.#right.set(key, this.#clock.monotonic());
        return isRight;
      } finally {
        end(isWrong);
      }
    };
    const running = compare().finally(() => this.#running.delete(key));
    this.#running.set(key, running);
    return running;
  }

  /** A hash for a name that is not a user's, so that its check takes as long as those of users do. It matches no password. */
  #decoy(username: string): string {
    const hashes = [...(this.#users?.values() ?? [])];
    const like = hashes[this.#hmac(username).readUInt32BE() % Math.max(1, hashes.length)] ?? '$2b$10$';
    return `${like.slice(0, '$2b$10$'.length)}${'.'.repeat(53)}`;
  }

  #keyOf(username: string, password: string, hash: string): string {
    return this.#hmac(JSON.stringify([username, password, hash])).toString('base64');
  }

  #hmac(text: string): Buffer {
    return createHmac('sha256', this.#key).update(text).digest();
  }

  async #read(): Promise<void> {
    if (this.#path === undefined) return;
    this.#lookedAt = this.#clock.monotonic();
    try {
      // Follows links: Kubernetes replaces a link when it updates a ConfigMap or a Secret.
      const {ino, dev, size, mtimeMs} = await stat(this.#path);
      const version = [ino, dev, size, mtimeMs].join();
      if (version === this.#version) return;
      const text = await readFile(this.#path, 'utf8');
      this.#version = version;
      this.#adopt(text);
    } catch (error) {
      if (!this.#users) throw new Error(`${this.#path} cannot be used: ${messageOf(error)}`, {cause: error});
      this.#report(this.#path, messageOf(error));
    }
  }

  /** Once for each reason: the file is looked at again and again. */
  #report(path: string, reason: string): void {
    if (reason === this.#reported) return;
    this.#reported = reason;
    this.#events.emit('login.users-rejected', {path, reason});
  }

  /** @throws Error with every fault of the file */
  #adopt(text: string): void {
    const {users, faults} = parseHtpasswd(text);
    if (faults.length > 0) throw new Error(faults.map(describeFault).join('; '));
    this.#users = users;
    this.#reported = undefined;
    this.#identities.clear();
    for (const [name, hash] of users) {
      const id = createHash('sha256').update(hash).digest('base64url').slice(0, 16);
      this.#identities.set(name, {names: [`user:${name}`], source: {method: this.name, id}});
    }
    this.#changed();
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** @throws LoginRefused for a password of which bcrypt would compare only the beginning */
function refuseUnreadable(password: string): void {
  const length = Buffer.byteLength(password);
  if (length > MAX_PASSWORD_BYTES)
    throw new LoginRefused(
      `the password has ${length} bytes; bcrypt compares only the first ${MAX_PASSWORD_BYTES}, so longer ones are refused`,
    );
  if (password.includes('\0'))
    throw new LoginRefused(
      'the password has a zero byte; bcrypt compares only what is before it, so it is refused',
    );
}
