import {BlockList, isIP, SocketAddress} from 'node:net';
import {ANONYMOUS, type Caller} from '../caller.ts';
import {OciError} from '../oci/errors.ts';

/**
 * Characters of `Via` that are passed on: about twenty proxies, the latest ones. An upstream may refuse a longer header,
 * and its refusal would reach everybody who shares the answer.
 */
const MAX_VIA_LENGTH = 1024;

/**
 * Who asks. Every client is anonymous: an `Authorization` header, which Docker sends to mirrors, is neither read nor
 * passed on.
 */
export function callerOf(via: string | undefined, isLocal: boolean): Caller {
  if (via === undefined) return {...ANONYMOUS, isLocal};
  const entries = via
    .slice(-MAX_VIA_LENGTH)
    .split(',')
    .map((entry) => entry.trim());
  // The first entry of a header that was cut is incomplete.
  return {...ANONYMOUS, isLocal, via: via.length > MAX_VIA_LENGTH ? entries.slice(1) : entries};
}

/**
 * A request that carries our own name in `Via` has gone round in a circle (RFC 9110, section 7.6.3).
 * @throws OciError 508
 */
export function refuseLoop({via}: Caller, pseudonym: string): void {
  if (!via.some((entry) => entry.split(/\s+/)[1] === pseudonym)) return;
  throw new OciError('UNAVAILABLE', {
    status: 508,
    message:
      'this request came back to the proxy that sent it: an upstream in the configuration leads back here',
  });
}

/** Finds a client's address, given its connection's address and the `X-Forwarded-For` that came over it, if any. */
export type ClientAddress = (
  peer: string | undefined,
  forwardedFor: string | undefined,
) => string | undefined;

/**
 * Finds the address of a client behind proxies. Each proxy appends the address of its own client, so the list is read
 * from its right end for as long as the proxy that wrote an entry is trusted: what is left of the first untrusted
 * address is the client's own text.
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

/** An IPv4 address that arrives at an IPv6 socket (`::ffff:10.0.0.1`) is written as IPv4; a zone is left out. */
function canonicalAddress(text: string): string | undefined {
  const [plain = ''] = text.split('%');
  if (isIP(plain) === 0) return undefined;
  const {address} = new SocketAddress({address: plain, family: familyOf(plain)});
  return address.replace(/^::ffff:(?=\d+\.)/, '');
}

/** Some proxies append the port: `10.0.0.1:5000`, `[2001:db8::1]:5000`. */
const withoutPort = (entry: string): string =>
  /^\[([^\]]*)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([^:]*):\d+$/.exec(entry)?.[1] ?? entry;
