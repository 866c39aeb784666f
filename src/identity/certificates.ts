import {type CallerGlob, parseCallerGlob} from '../caller-glob.ts';
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
 * alternative names (URIs, DNS names, addresses of e-mail) and with its common name.
 */
export function createCertificates(mappings: readonly CertificateConfig[]): IdentifyCertificate {
  const parsed = mappings.map(({subject, san, user}) => ({
    subject: globOf(subject),
    san: globOf(san),
    user: `user:${user}`,
  }));
  // A connection has one certificate for all of its requests.
  const known = new WeakMap<CertificateNames, Identity | undefined>();

  function identityOf({subject, commonName, ...sans}: CertificateNames): Identity | undefined {
    const alternatives = [...sans.uris, ...sans.dnsNames, ...sans.emails].filter(isPrintable);
    const user = parsed.find(
      (mapping) =>
        (mapping.subject?.matches(subject) && isPrintable(subject)) ||
        alternatives.some((name) => mapping.san?.matches(name)),
    )?.user;
    const certified = [...alternatives, commonName ?? ''].filter(isPrintable).map((name) => `cert:${name}`);
    const [own, ...others] = new Set([...(user === undefined ? [] : [user]), ...certified]);
    return own === undefined ? undefined : {names: [own, ...others]};
  }

  return (certificate) => {
    if (!known.has(certificate)) known.set(certificate, identityOf(certificate));
    return known.get(certificate);
  };
}

const globOf = (text: string | undefined): CallerGlob | undefined =>
  text === undefined ? undefined : parseCallerGlob(text);

/** No rule can name what has control characters. */
const isPrintable = (name: string): boolean => name !== '' && !/\p{Cc}/u.test(name);
