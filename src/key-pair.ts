import {createPrivateKey, X509Certificate} from 'node:crypto';
import {createSecureContext} from 'node:tls';

/** What a TLS server proves its name with, as PEM text. */
export interface KeyPair {
  /** The server's certificate, followed by those of the intermediate authorities. */
  cert: string;
  /** The private key of the first certificate, not encrypted. */
  key: string;
  /** The authorities of client certificates; undefined where none are asked for. */
  clientCa: string | undefined;
}

/** Why a key pair cannot be used. */
export interface KeyPairFault {
  /** The setting below `tls` whose file is to be replaced. */
  file: keyof KeyPair;
  /** The end of "names a file that …". */
  problem: string;
}

/** @returns the first reason why the pair cannot be used; undefined for one that can */
export function keyPairFault({cert, key, clientCa}: KeyPair): KeyPairFault | undefined {
  const certificate = attempt(() => new X509Certificate(cert));
  if (!certificate) return {file: 'cert', problem: 'has no certificate in PEM'};
  const privateKey = attempt(() => createPrivateKey(key));
  if (!privateKey) return {file: 'key', problem: 'has no private key in PEM, or one that is encrypted'};
  if (!certificate.checkPrivateKey(privateKey))
    return {file: 'key', problem: 'has the key of another certificate than the one in tls.cert'};
  if (clientCa !== undefined && !attempt(() => new X509Certificate(clientCa)))
    return {file: 'clientCa', problem: 'has no certificate in PEM'};
  try {
    createSecureContext({cert, key, ca: clientCa});
  } catch (error) {
    return {
      file: 'cert',
      problem: `cannot be used for TLS: ${error instanceof Error ? error.message : error}`,
    };
  }
  return undefined;
}

/** When a certificate expires, in milliseconds since the epoch. @param cert PEM text with a certificate */
export const expiryOf = (cert: string): number => Date.parse(new X509Certificate(cert).validTo);

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
