import {createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject} from 'node:crypto';
import {open, readFile, rename} from 'node:fs/promises';
import {join} from 'node:path';
import {calculateJwkThumbprint, exportJWK} from 'jose';
import type {Clock} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import type {Events} from '../events.ts';

/** A key that signs tokens, and the one algorithm that it is used with. */
export interface SigningKey {
  /** Names it in tokens: its thumbprint (RFC 7638). */
  readonly id: string;
  readonly algorithm: 'EdDSA' | 'ES256';
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
}

/** The keys of this server's own tokens. */
export interface SigningKeys {
  /** The one that signs now. */
  current(): Promise<SigningKey>;
  /** A key that has signed a token that may still be valid. */
  find(id: string): Promise<SigningKey | undefined>;
}

export interface SigningKeysParts {
  /** The data folder. */
  folder: string;
  /** A private key as PEM that the operator supplies; undefined for generated ones. */
  supplied: string | undefined;
  /** Milliseconds for which a key is kept after its successor has signed its first token: the longest life of a token. */
  keptFor: number;
  clock: Pick<Clock, 'now'>;
  events: Events;
}

/** Beside the database, readable by the server's own user alone. */
const FILE = 'token-keys.json';
const ROTATED_AFTER_MS = 30 * 24 * 60 * 60 * 1000;

/**
 * Keys are read, or generated and written, when the first token is signed or verified. A supplied key is used alone.
 */
export const createSigningKeys = (parts: SigningKeysParts): SigningKeys =>
  parts.supplied === undefined ? new GeneratedKeys(parts) : suppliedKey(parts.supplied);

/** What is wrong with a private key. @returns undefined where nothing is */
export function whyNoSigningKey(pem: string): string | undefined {
  try {
    algorithmOf(createPrivateKey(pem));
    return undefined;
  } catch (error) {
    return error instanceof UnusableKey ? error.message : 'is not a private key in PEM without a passphrase';
  }
}

class UnusableKey extends Error {}

function suppliedKey(pem: string): SigningKeys {
  const key = keyOf(createPrivateKey(pem), 0);
  return {
    current: () => key,
    find: async (id) => ((await key).id === id ? key : undefined),
  };
}

class GeneratedKeys implements SigningKeys {
  readonly #path: string;
  readonly #keptFor: number;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #events: Events;
  /** False where the file is there and cannot be read just now: it may have keys that are still needed. */
  #mayReplace = true;
  /** The newest first. */
  #keys: Promise<readonly SigningKey[]> | undefined;

  constructor({folder, keptFor, clock, events}: SigningKeysParts) {
    this.#path = join(folder, FILE);
    this.#keptFor = keptFor;
    this.#clock = clock;
    this.#events = events;
  }

  async current(): Promise<SigningKey> {
    this.#keys ??= this.#read();
    const loading = this.#keys;
    const [newest] = await loading;
    const age = newest ? this.#clock.now() - newest.createdAt : Number.POSITIVE_INFINITY;
    if (newest && age < ROTATED_AFTER_MS) return newest;
    // Another request may have begun to rotate meanwhile.
    if (this.#keys === loading) this.#keys = this.#rotate(loading);
    return this.current();
  }

  async find(id: string): Promise<SigningKey | undefined> {
    this.#keys ??= this.#read();
    return (await this.#keys).find((key) => key.id === id);
  }

  async #read(): Promise<readonly SigningKey[]> {
    try {
      const stored: {createdAt: number; pem: string}[] = JSON.parse(await readFile(this.#path, 'utf8')).keys;
      return await Promise.all(stored.map(({pem, createdAt}) => keyOf(createPrivateKey(pem), createdAt)));
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return [];
      // What is not JSON is of no use to anybody; other errors may be over after a restart.
      this.#mayReplace = error instanceof SyntaxError;
      this.#failed('read', error);
      return [];
    }
  }

  async #rotate(before: Promise<readonly SigningKey[]>): Promise<readonly SigningKey[]> {
    const now = this.#clock.now();
    const old = (await before).filter((_, index, all) => {
      const successor = index === 0 ? now : (all[index - 1]?.createdAt ?? now);
      return now - successor < this.#keptFor;
    });
    const keys = [await keyOf(generateKeyPairSync('ed25519').privateKey, now), ...old];
    try {
      if (this.#mayReplace) await this.#write(keys);
    } catch (error) {
      // The keys serve until the process ends, and its tokens end with it.
      this.#failed('write', error);
    }
    return keys;
  }

  async #write(keys: readonly SigningKey[]): Promise<void> {
    const stored = keys.map(({privateKey, createdAt}) => ({
      createdAt,
      pem: privateKey.export({type: 'pkcs8', format: 'pem'}),
    }));
    const next = `${this.#path}.new`;
    const file = await open(next, 'w', 0o600);
    try {
      await file.chmod(0o600);
      await file.writeFile(`${JSON.stringify({keys: stored}, undefined, 2)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(next, this.#path);
  }

  #failed(what: string, error: unknown): void {
    this.#events.emit('background.failed', {task: `${what} the keys of tokens in ${this.#path}`, error});
  }
}

async function keyOf(privateKey: KeyObject, createdAt: number): Promise<SigningKey> {
  const publicKey = createPublicKey(privateKey);
  const id = await calculateJwkThumbprint(await exportJWK(publicKey));
  return {id, algorithm: algorithmOf(privateKey), privateKey, publicKey, createdAt};
}

/** @throws UnusableKey */
function algorithmOf({asymmetricKeyType, asymmetricKeyDetails}: KeyObject): SigningKey['algorithm'] {
  if (asymmetricKeyType === 'ed25519') return 'EdDSA';
  if (asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === 'prime256v1') return 'ES256';
  throw new UnusableKey(
    `is a key of the kind ${asymmetricKeyType}: it must be Ed25519, as "openssl genpkey -algorithm ed25519" makes it, or an EC key on the curve P-256`,
  );
}
