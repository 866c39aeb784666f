import {type LookupAddress, type LookupOptions, lookup as lookUp} from 'node:dns';
import {BlockList, isIP, type LookupFunction} from 'node:net';

/** Networks that are not the internet's (RFC 6890): whoever names such an address means something near this machine. */
const IPV4: readonly (readonly [network: string, prefix: number])[] = [
  ['0.0.0.0', 8], // this host
  ['10.0.0.0', 8],
  ['100.64.0.0', 10], // shared by carriers, and by overlay networks
  ['127.0.0.0', 8],
  ['169.254.0.0', 16], // link-local, and the metadata services of clouds
  ['172.16.0.0', 12],
  ['192.0.0.0', 24], // of protocols, and the metadata service of a cloud
  ['192.168.0.0', 16],
];
const IPV6: readonly (readonly [network: string, prefix: number])[] = [
  ['::', 127], // unspecified and loopback
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
];
/**
 * Prefixes of 96 bits before an IPv4 address: compatible, NAT64 (RFC 6052, and RFC 8215 for local use). The list
 * compares mapped addresses by itself.
 */
const EMBEDDING = ['::', '64:ff9b::', '64:ff9b:1::'];

const PRIVATE = new BlockList();
for (const [network, prefix] of IPV4) {
  PRIVATE.addSubnet(network, prefix, 'ipv4');
  for (const before of EMBEDDING) PRIVATE.addSubnet(`${before}${network}`, 96 + prefix, 'ipv6');
}
for (const [network, prefix] of IPV6) PRIVATE.addSubnet(network, prefix, 'ipv6');

/** Is this IP address private, loopback or link-local, however it is written? */
export function isPrivateAddress(address: string): boolean {
  const [bare = ''] = address.split('%', 1);
  return PRIVATE.check(bare, isIP(bare) === 6 ? 'ipv6' : 'ipv4');
}

/** The IP address that a URL names by itself; undefined where it names a host. The URL's parser has normalized it. */
export function addressIn({hostname}: URL): string | undefined {
  const bare = hostname.replace(/^\[|\]$/g, '');
  return isIP(bare) === 0 ? undefined : bare;
}

/** Why an address is not asked, said of its host, and what to do if it is meant. */
export const refusedAddress = (hostname: string, address: string): string =>
  `has the private address ${address}, where a public registry may not lead; if it is meant, add "${hostname}" to upstream.redirectHosts`;

/** A name that has only private addresses, where a public one was needed. */
export class PrivateAddress extends Error {
  override readonly name = 'PrivateAddress';
  readonly hostname: string;
  readonly address: string;

  constructor(hostname: string, address: string) {
    super(`${hostname} has the private address ${address}`);
    this.hostname = hostname;
    this.address = address;
  }
}

/**
 * Makes a lookup whose connections never go to a private address: the addresses that a connection is made to are those
 * that were looked at.
 * @param exempt host names that may have any address: those of forward proxies.
 */
export function createPublicLookup(exempt: ReadonlySet<string>): LookupFunction {
  return (hostname, options: LookupOptions, callback) => {
    lookUp(hostname, {...options, all: true}, (error, all: LookupAddress[]) => {
      if (error) return callback(error, '');
      const allowed = exempt.has(hostname) ? all : all.filter(({address}) => !isPrivateAddress(address));
      const [first] = allowed;
      if (!first) return callback(new PrivateAddress(hostname, all[0]?.address ?? ''), '');
      if (options.all) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}
