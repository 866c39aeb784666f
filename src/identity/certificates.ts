import {parseCallerGlob} from '../caller-glob.ts';
import type {CertificateConfig} from '../config.ts';
import type {Identity} from './authenticator.ts';

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

/**
 * Finds out who presents a certificate: `user:NAME` by the first setting that matches it, then `cert:` with each of its
 * alternative names (URIs, DNS names, e-mail addresses) and with its common name.
 * @param mappings the settings in force
 */
export function createCertificates(mappings: () => readonly CertificateConfig[]): IdentifyCertificate {
  // A connection has one certificate for all of its requests.
  let known = new WeakMap<CertificateNames, Identity | undefined>();
  let adopted = mappings();
  return (certificate) => {
    if (adopted !== mappings()) {
      adopted = mappings();
      known = new WeakMap();
    }
    if (!known.has(certificate)) known.set(certificate, identityOf(certificate, adopted));
    return known.get(certificate);
  };
}

function identityOf(
  {subject, commonName, ...sans}: CertificateNames,
  mappings: readonly CertificateConfig[],
): Identity | undefined {
  const alternatives = [...sans.uris, ...sans.dnsNames, ...sans.emails].filter(isPrintable);
  const user = mappings.find((mapping) =>
    mapping.subject === undefined
      ? alternatives.some((name) => matches(mapping.san, name))
      : isPrintable(subject) && matches(mapping.subject, subject),
  )?.user;
  const certified = [...alternatives, commonName ?? ''].filter(isPrintable).map((name) => `cert:${name}`);
  const [own, ...others] = new Set([...(user === undefined ? [] : [`user:${user}`]), ...certified]);
  return own === undefined ? undefined : {names: [own, ...others]};
}

const matches = (glob: string | undefined, name: string): boolean =>
  glob !== undefined && parseCallerGlob(glob)?.matches(name) === true;

/** No rule can name what has control characters. */
const isPrintable = (name: string): boolean => name !== '' && !/\p{Cc}/u.test(name);
