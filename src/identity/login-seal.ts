import {createSecretKey, hkdfSync, type KeyObject} from 'node:crypto';
import {CompactEncrypt, compactDecrypt, decodeProtectedHeader} from 'jose';
import type {SigningKey, SigningKeys} from './signing-keys.ts';

/** A login for the upstream of a registry. */
export interface SealedLogin {
  /** The registry's name. */
  readonly registry: string;
  /** The upstream's, with its port if it has one. */
  readonly host: string;
  readonly username: string;
  readonly password: string;
}

/** Encrypts logins, so that a client can carry its own one in a token of ours without storing it anywhere else. */
export interface LoginSeal {
  close(login: SealedLogin): Promise<string>;
  /** @returns undefined for what was not sealed here, or with a key that is gone */
  open(sealed: string): Promise<SealedLogin | undefined>;
}

/** RFC 7518, sections 4.5 and 5.3: the key itself, with AES-GCM. */
const HEADER = {alg: 'dir', enc: 'A256GCM'} as const;
const PURPOSE = 'backref sealed login';
const KEY_BYTES = 32;

/**
 * A JWE (RFC 7516) with a key that is derived from the one that signs tokens (RFC 5869): it is kept, replaced and supplied
 * together with that.
 */
export function createLoginSeal(keys: SigningKeys): LoginSeal {
  const derived = new WeakMap<SigningKey, KeyObject>();
  const keyFor = (signing: SigningKey): KeyObject => {
    const known = derived.get(signing);
    if (known) return known;
    const secret = signing.privateKey.export({type: 'pkcs8', format: 'der'});
    const key = createSecretKey(Buffer.from(hkdfSync('sha256', secret, '', PURPOSE, KEY_BYTES)));
    derived.set(signing, key);
    return key;
  };

  return {
    async close(login) {
      const signing = await keys.current();
      return new CompactEncrypt(Buffer.from(JSON.stringify(login)))
        .setProtectedHeader({...HEADER, kid: signing.id})
        .encrypt(keyFor(signing));
    },
    async open(sealed) {
      try {
        const signing = await keys.find(decodeProtectedHeader(sealed).kid ?? '');
        if (!signing) return undefined;
        const {plaintext} = await compactDecrypt(sealed, keyFor(signing), {
          keyManagementAlgorithms: [HEADER.alg],
          contentEncryptionAlgorithms: [HEADER.enc],
        });
        return JSON.parse(Buffer.from(plaintext).toString());
      } catch {
        return undefined;
      }
    },
  };
}
