import {type LookupAddress, type LookupOptions, lookup as lookUp} from 'node:dns';
import {BlockList, isIP, type LookupFunction} from 'node:net';

/** Networks that are not part of the public internet (RFC 6890). */
const IPV4: readonly (readonly [network: string, prefix: number])[] = [
  ['0.0.0.0', 8], // this host
  ['10.0.0.0', 8],
  ['100.64.0.0', 10], // carrier-grade NAT, and overlay networks
  ['127.0.0.0', 8],
  ['169.254.0.0', 16], // link-local, including cloud metadata services
  ['172.16.0.0', 12],
  ['192.0.0.0', 24], // protocol assignments, including a cloud metadata service
  ['192.168.0.0', 16],
];
const IPV6: readonly (readonly [network: string, prefix: number])[] = [
  ['::', 127], // unspecified and loopback
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
];
/**
 * 96-bit prefixes of IPv6 addresses that contain an IPv4 address: IPv4-compatible, and NAT64 (RFC 6052; RFC 8215 for
 * local use). BlockList handles IPv4-mapped addresses itself.
 */
const EMBEDDING = ['::', '64:ff9b::', '64:ff9b:1::'];

const PRIVATE = new BlockList();
for (const [network, prefix] of IPV4) {
  PRIVATE.addSubnet(network, prefix, 'ipv4');
  for (const before of EMBEDDING) PRIVATE.addSubnet(`${before}${network}`, 96 + prefix, 'ipv6');
}
for (const [network, prefix] of IPV6) PRIVATE.addSubnet(network, prefix, 'ipv6');

/** Whether an IP address is private, loopback or link-local, in any notation. */
export function isPrivateAddress(address: string): boolean {
  const [bare = ''] = address.split('%', 1);
  return PRIVATE.check(bare, isIP(bare) === 6 ? 'ipv6' : 'ipv4');
}

/** The IP address in a URL, as the URL parser normalized it; undefined when the URL has a host name. */
export function addressIn({hostname}: URL): string | undefined {
  const bare = hostname.replace(/^\[|\]$/g, '');
  return isIP(bare) === 0 ? undefined : bare;
}

/** The reason why a host with a private address is refused, and how to allow it. */
export const refusedAddress = (hostname: string, address: string): string =>
  `has the private address ${address}, to which a public registry may not redirect; if this is intended, add "${hostname}" to upstream.redirectHosts`;

/** A host name that has only private addresses, where a public one is required. */
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
 * Creates a lookup that returns no private address. The connection is made to an address that it returned, so a second
 * DNS answer cannot slip in.
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
