import {lookup} from 'node:dns/promises';
import type {Clock} from '../clock.ts';
import type {Network} from './agents.ts';
import {UpstreamFailure} from './port.ts';
import {addressIn, isPrivateAddress, refusedAddress} from './private-address.ts';

/**
 * Where may an upstream send us? A registry that could name any address could have this machine ask its neighbours, so
 * private addresses are for upstreams that have one themselves, and for hosts of `upstream.redirectHosts`.
 * @returns the network that the URL is to be asked by.
 * @throws UpstreamFailure `protocol` for a private address that the upstream may not name.
 */
export type RedirectNetwork = (url: URL) => Promise<Network>;

/** Milliseconds for which it is remembered whether the upstream's name has a private address. */
const REMEMBERED_MS = 60_000;

export function createRedirectNetwork(
  upstream: URL,
  redirectHosts: readonly string[],
  clock: Clock,
): RedirectNetwork {
  const {host, hostname} = upstream;
  let known: {isPrivate: Promise<boolean>; until: number} | undefined;

  /** Behind a forward proxy its name may mean nothing here: then it has no private address either. */
  const look = async (): Promise<boolean> => {
    const address = addressIn(upstream);
    const all = address ? [{address}] : await lookup(hostname, {all: true}).catch(() => []);
    return all.some((one) => isPrivateAddress(one.address));
  };
  const isPrivate = (): Promise<boolean> => {
    if (!known || clock.monotonic() >= known.until) {
      known = {isPrivate: look(), until: clock.monotonic() + REMEMBERED_MS};
    }
    return known.isPrivate;
  };

  return async (url) => {
    if (url.hostname === hostname) return 'any';
    if (redirectHosts.includes(url.hostname) || redirectHosts.includes(url.host)) return 'any';
    if (await isPrivate()) return 'any';
    const address = addressIn(url);
    if (address === undefined || !isPrivateAddress(address)) return 'public';
    throw new UpstreamFailure('protocol', host, `leads to ${refusedAddress(url.hostname, address)}`);
  };
}
