import {BlockList, isIP, SocketAddress} from 'node:net';

/** Tells whose request it is: the address of the connection, and the `X-Forwarded-For` that came over it, if any. */
export type ClientAddress = (
  peer: string | undefined,
  forwardedFor: string | undefined,
) => string | undefined;

/**
 * Finds the address of a client behind proxies. Each proxy appends the address that it was asked from, so the list is
 * read from its right end for as long as whoever wrote an entry is trusted: what is left of the first untrusted address
 * is the client's own text.
 * @param trusted addresses and networks in CIDR notation; with none, the connection's own address is the client's
 */
export function createClientAddress(trusted: readonly string[]): ClientAddress {
  const proxies = createBlockList(trusted);
  return (peer, forwardedFor) => {
    let client = canonicalAddress(peer ?? '');
    const entries = forwardedFor?.split(',') ?? [];
    while (client !== undefined && proxies.check(client, familyOf(client))) {
      const next = canonicalAddress(withoutPort(entries.pop()?.trim() ?? ''));
      if (next === undefined) break;
      client = next;
    }
    return client;
  };
}

function createBlockList(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', prefix] = network.split('/');
    if (prefix === undefined) list.addAddress(address, familyOf(address));
    else list.addSubnet(address, Number(prefix), familyOf(address));
  }
  return list;
}

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 4 ? 'ipv4' : 'ipv6');

/** An IPv4 address that arrives at an IPv6 socket (`::ffff:10.0.0.1`) is written as what it is; a zone is left out. */
function canonicalAddress(text: string): string | undefined {
  const [plain = ''] = text.split('%');
  if (isIP(plain) === 0) return undefined;
  const {address} = new SocketAddress({address: plain, family: familyOf(plain)});
  return address.replace(/^::ffff:(?=\d+\.)/, '');
}

/** Some proxies append the port as well: `10.0.0.1:5000`, `[2001:db8::1]:5000`. */
const withoutPort = (entry: string): string =>
  /^\[([^\]]*)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([^:]*):\d+$/.exec(entry)?.[1] ?? entry;
