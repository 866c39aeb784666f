import {lookup} from 'node:dns/promises';
import type {Clock} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import type {Network} from './agents.ts';
import {addressIn, isPrivateAddress, refusedAddress} from './private-address.ts';

/**
 * Where may an upstream send us? A registry that could name any address could have this machine ask its neighbours, so
 * private addresses are for upstreams that have one themselves, and for hosts that are listed.
 * @returns the network that the URL is to be asked by.
 * @throws UpstreamFailure `protocol` for a private address, or a forward proxy, that the upstream may not name.
 */
export type RedirectNetwork = (url: URL) => Promise<Network>;

export interface RedirectNetworkDeps {
  /** `host` or `host:port`: these may have any address. */
  listed: readonly string[];
  /** The host names of forward proxies, which connections are made to whatever their address is. */
  proxies: ReadonlySet<string>;
  clock: Clock;
  /** Gives all addresses of a host name; default the system's. */
  addressesOf?: (hostname: string) => Promise<readonly string[]>;
}

/** Milliseconds for which it is remembered whether the upstream's name has a private address. */
const REMEMBERED_MS = 60_000;

const askSystem = async (hostname: string): Promise<string[]> =>
  (await lookup(hostname, {all: true})).map(({address}) => address);

export function createRedirectNetwork(
  upstream: URL,
  {listed, proxies, clock, addressesOf = askSystem}: RedirectNetworkDeps,
): RedirectNetwork {
  const {host, hostname} = upstream;
  const ownAddress = addressIn(upstream);
  let known: {isPrivate: boolean; until: number} | undefined;
  let looking: Promise<boolean> | undefined;

  /**
   * A name with a public address as well is public: whoever owns it could add a private one. What is known stays while
   * DNS fails. Behind a forward proxy the name may mean nothing here: then it has no private address either.
   */
  const look = async (): Promise<boolean> => {
    const addresses = await addressesOf(hostname).catch(() => undefined);
    looking = undefined;
    if (addresses) {
      known = {isPrivate: addresses.every(isPrivateAddress), until: clock.monotonic() + REMEMBERED_MS};
    }
    return known?.isPrivate ?? false;
  };
  const isPrivate = async (): Promise<boolean> => {
    if (ownAddress !== undefined) return isPrivateAddress(ownAddress);
    if (known && clock.monotonic() < known.until) return known.isPrivate;
    looking ??= look();
    return looking;
  };

  const refused = (where: string): UpstreamFailure =>
    new UpstreamFailure('protocol', host, `leads to ${where}`);

  return async (url) => {
    if (url.hostname === hostname) return 'any';
    if (listed.includes(url.hostname) || listed.includes(url.host)) return 'any';
    if (await isPrivate()) return 'any';
    const address = addressIn(url);
    if (address !== undefined && isPrivateAddress(address)) {
      throw refused(`${url.hostname}, which ${refusedAddress(url.hostname, address)}`);
    }
    if (!proxies.has(url.hostname)) return 'public';
    const advice = `if it is meant, add "${url.hostname}" to upstream.redirectHosts`;
    throw refused(`the forward proxy ${url.hostname}; ${advice}`);
  };
}
