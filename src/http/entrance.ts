import type {X509Certificate} from 'node:crypto';
import {BlockList, isIP, isIPv4, isIPv6, SocketAddress} from 'node:net';

/** Where a request came in: the listener, and what its connection proves. */
export interface Entrance {
  /** Its place among the listeners of the server. */
  readonly number: number;
  /** Only processes on this machine can connect: the listener has a loopback address, or is a Unix socket. */
  readonly isLoopback: boolean;
  /** The connection is encrypted by TLS. A proxy in front may have ended the client's TLS: see `originOf`. */
  readonly isSecure: boolean;
  /** `main` serves registries, `admin` what operators and monitoring ask. */
  readonly serves: 'main' | 'admin';
  /** Whether the headers in which a peer names its own client are believed. @param peer an address; undefined for a Unix socket */
  readonly isTrustedProxy: (peer: string | undefined) => boolean;
  /** What the client proved by TLS to own; undefined without a certificate that an authority of `tls.clientCa` signed. */
  readonly certificate: ClientCertificate | undefined;
}

/** The names in a verified client certificate. */
export interface ClientCertificate {
  /** The distinguished name from its least specific part on, as RFC 4514 escapes it: `O=Example,CN=ci`. */
  readonly subject: string;
  /** Undefined where the subject has none, or several. */
  readonly commonName: string | undefined;
  /** The subject's alternative names (RFC 5280, section 4.2.1.6), by their kind. */
  readonly dnsNames: readonly string[];
  readonly emails: readonly string[];
  readonly uris: readonly string[];
}

/** The names in a certificate. @param certificate one that was verified */
export function readClientCertificate(certificate: X509Certificate): ClientCertificate {
  const {CN: commonName}: Record<string, unknown> = {...certificate.toLegacyObject().subject};
  const names = [...(certificate.subjectAltName ?? '').matchAll(ALTERNATIVE_NAME)].map(
    ([, kind = '', text = '']) => ({kind, text: text.startsWith('"') ? String(JSON.parse(text)) : text}),
  );
  const ofKind = (kind: string) => names.filter((name) => name.kind === kind).map(({text}) => text);
  return {
    subject: (certificate.subject ?? '').split('\n').join(','),
    commonName: typeof commonName === 'string' ? commonName : undefined,
    dnsNames: ofKind('DNS'),
    emails: ofKind('email'),
    uris: ofKind('URI'),
  };
}

/** Node writes a name as JSON where it could be mistaken for several. */
const ALTERNATIVE_NAME = /(\w[\w ]*):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/g;

/** In a list of trusted proxies, everyone who can connect to a Unix socket. */
const UNIX = 'unix';

/**
 * Tells trusted proxies from other peers.
 * @param trusted addresses, networks in CIDR notation, and `unix` for the peers of a Unix socket
 */
export function createTrustedProxies(trusted: readonly string[]): Entrance['isTrustedProxy'] {
  const proxies = new BlockList();
  for (const network of trusted.filter((text) => text !== UNIX)) {
    const [address = '', prefix] = network.split('/');
    if (prefix === undefined) proxies.addAddress(address, familyOf(address));
    else proxies.addSubnet(address, Number(prefix), familyOf(address));
  }
  const trustsUnix = trusted.includes(UNIX);
  return (peer) => (peer === undefined ? trustsUnix : proxies.check(peer, familyOf(peer)));
}

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 4 ? 'ipv4' : 'ipv6');

/**
 * An address in its one spelling: an IPv4 address that arrives at an IPv6 socket (`::ffff:10.0.0.1`) is written as IPv4;
 * a zone is left out. @returns undefined for any other text
 */
export function canonicalAddress(text: string): string | undefined {
  const plain = MAPPED.exec(text)?.[1] ?? text;
  // Most are of this kind, and have one spelling.
  if (isIPv4(plain)) return plain;
  const [address = ''] = text.split('%');
  if (!isIPv6(address)) return undefined;
  return new SocketAddress({address, family: 'ipv6'}).address.replace(MAPPED, '$1');
}

/** An IPv4 address in one of IPv6 (RFC 4291, section 2.5.5.2). */
const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/;
