import {createHash} from 'node:crypto';
import {parseCallerGlob} from '../caller-glob.ts';
import type {CertificateConfig} from '../config.ts';
import type {Identity, TokenSource} from './authenticator.ts';

/** The names in a client certificate that was verified. */
export interface CertificateNames {
  /** The distinguished name: `O=Example,CN=ci`. */
  readonly subject: string;
  readonly commonName: string | undefined;
  /** The subject's alternative names. */
  readonly dnsNames: readonly string[];
  readonly emails: readonly string[];
  readonly uris: readonly string[];
}

/** Who presents a certificate; undefined for one that names nobody. */
export type IdentifyCertificate = (certificate: CertificateNames) => Identity | undefined;

/** Whom certificates belong to. A token that was issued for one ends when the settings of certificates change. */
export interface Certificates extends TokenSource {
  identify: IdentifyCertificate;
}

const METHOD = 'certificate';

/**
 * Finds out who presents a certificate: `user:NAME` by the first setting that matches it, then `cert:` with each of its
 * alternative names (URIs, DNS names, e-mail addresses) and with its common name.
 * @param mappings the settings in force
 */
export function createCertificates(mappings: () => readonly CertificateConfig[]): Certificates {
  // A connection has one certificate for all of its requests.
  let known = new WeakMap<CertificateNames, Identity | undefined>();
  let adopted = mappings();
  let id = idOf(adopted);
  const adopt = (): void => {
    if (adopted === mappings()) return;
    adopted = mappings();
    id = idOf(adopted);
    known = new WeakMap();
  };
  return {
    name: METHOD,
    isCheckedOnce: true,
    identify(certificate) {
      adopt();
      if (!known.has(certificate)) known.set(certificate, identityOf(certificate, adopted, id));
      return known.get(certificate);
    },
    recall(own, issuedFor) {
      adopt();
      return issuedFor === id ? own : undefined;
    },
  };
}

const idOf = (mappings: readonly CertificateConfig[]): string =>
  createHash('sha256').update(JSON.stringify(mappings)).digest('base64url').slice(0, 16);

function identityOf(
  {subject, commonName, ...sans}: CertificateNames,
  mappings: readonly CertificateConfig[],
  id: string,
): Identity | undefined {
  const alternatives = [...sans.uris, ...sans.dnsNames, ...sans.emails].filter(isPrintable);
  const user = mappings.find((mapping) =>
    mapping.subject === undefined
      ? alternatives.some((name) => matches(mapping.san, name))
      : isPrintable(subject) && matches(mapping.subject, subject),
  )?.user;
  const certified = [...alternatives, commonName ?? ''].filter(isPrintable).map((name) => `cert:${name}`);
  const [own, ...others] = new Set([...(user === undefined ? [] : [`user:${user}`]), ...certified]);
  return own === undefined ? undefined : {names: [own, ...others], source: {method: METHOD, id}};
}

const matches = (glob: string | undefined, name: string): boolean =>
  glob !== undefined && parseCallerGlob(glob)?.matches(name) === true;

/** No rule can name what has control characters. */
const isPrintable = (name: string): boolean => name !== '' && !/\p{Cc}/u.test(name);
