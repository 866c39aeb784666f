import {lookup} from 'node:dns/promises';
import type {Clock} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import type {Network} from './agents.ts';
import {discard} from './body.ts';
import {waitFor} from './budget.ts';
import {addressIn, isPrivateAddress, refusedAddress} from './private-address.ts';
import {header, type Method, type Reply} from './reply.ts';
import type {RequestOptions, Send} from './request.ts';

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** These keep the method and the body (RFC 9110, section 15.4). After the others a write would become a GET. */
const METHOD_KEEPING = new Set([307, 308]);
const MAX_REDIRECTS = 5;

function targetOf(reply: Reply, method: Method): URL | undefined {
  const followed = method === 'GET' || method === 'HEAD' ? REDIRECTS : METHOD_KEEPING;
  const location = followed.has(reply.status) ? header(reply.headers, 'location') : undefined;
  if (location === undefined) return undefined;
  const refuse = (reason: string) => new UpstreamFailure('protocol', reply.url.host, reason);
  const target = URL.parse(location, reply.url.href);
  if (!target) throw refuse('redirects to a Location that is not a valid URL');
  const isSecure = target.protocol === 'https:';
  if (!isSecure && target.protocol !== 'http:')
    throw refuse(`redirects to a ${target.protocol} URL; only http and https are followed`);
  if (!isSecure && reply.url.protocol === 'https:')
    throw refuse(`redirects from https to http://${target.host}, which is refused`);
  return target;
}

/**
 * Sends a request and follows up to five redirects; for a write only those that keep the method. `Authorization` is sent
 * only to the origin (scheme, host and port) that it was meant for, and not again when a later redirect returns there
 * (RFC 9110, section 15.4).
 * @param networkOf decides which network may be used for another host.
 * @throws UpstreamFailure `protocol` for a redirect to an invalid URL, from https to http, to an address that `networkOf`
 * refuses, or after too many redirects.
 */
export async function followRedirects(
  send: Send,
  request: RequestOptions,
  signal: AbortSignal,
  networkOf: RedirectNetwork,
): Promise<Reply> {
  let current = request;
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const reply = await send(current, signal);
    let target: URL | undefined;
    try {
      target = targetOf(reply, request.method);
    } catch (error) {
      reply.body.close();
      throw error;
    }
    if (!target) return reply;
    discard(reply.body);
    const {authorization: _, ...others} = current.headers;
    const isSameHost = target.hostname === current.url.hostname;
    const network = isSameHost ? current.network : await waitFor(networkOf(target), signal);
    current = {
      ...current,
      network: network ?? 'any',
      url: target,
      headers: target.origin === current.url.origin ? current.headers : others,
    };
  }
  throw new UpstreamFailure('protocol', request.url.host, `redirects more than ${MAX_REDIRECTS} times`);
}

/**
 * Decides where an upstream may send us. A registry that could name any address could make this machine send requests to
 * its neighbours, so private addresses are allowed only for upstreams that have one themselves, and for listed hosts.
 * @returns the network to use for the URL.
 * @throws UpstreamFailure `protocol` for a private address, or a forward proxy, that the upstream may not name.
 */
export type RedirectNetwork = (url: URL) => Promise<Network>;

export interface RedirectNetworkDeps {
  /** `host` or `host:port`: these may have any address. */
  listed: readonly string[];
  /** Host names of forward proxies; connections to them are made whatever their address is. */
  proxies: ReadonlySet<string>;
  clock: Clock;
  /** Resolves all addresses of a host name; default the system's resolver. */
  addressesOf?: (hostname: string) => Promise<readonly string[]>;
}

/** How long the result of looking up the upstream's own name is used. */
const LOOKUP_CACHE_MS = 60_000;

const resolveHost = async (hostname: string): Promise<string[]> =>
  (await lookup(hostname, {all: true})).map(({address}) => address);

export function createRedirectNetwork(
  upstream: URL,
  {listed, proxies, clock, addressesOf = resolveHost}: RedirectNetworkDeps,
): RedirectNetwork {
  const {host, hostname} = upstream;
  const ownAddress = addressIn(upstream);
  let known: {isPrivate: boolean; until: number} | undefined;
  let lookingUp: Promise<boolean> | undefined;

  /**
   * A name that also has a public address counts as public, because its owner could add a private one. While DNS fails,
   * the last result stays. Behind a forward proxy the name may not resolve here; then it does not count as private.
   */
  const lookUp = async (): Promise<boolean> => {
    const addresses = await addressesOf(hostname).catch(() => undefined);
    lookingUp = undefined;
    if (addresses)
      known = {isPrivate: addresses.every(isPrivateAddress), until: clock.monotonic() + LOOKUP_CACHE_MS};
    return known?.isPrivate ?? false;
  };
  const isUpstreamPrivate = async (): Promise<boolean> => {
    if (ownAddress !== undefined) return isPrivateAddress(ownAddress);
    if (known && clock.monotonic() < known.until) return known.isPrivate;
    lookingUp ??= lookUp();
    return lookingUp;
  };

  const refuse = (where: string): UpstreamFailure =>
    new UpstreamFailure('protocol', host, `redirects to ${where}`);

  return async (url) => {
    if (url.hostname === hostname) return 'any';
    if (listed.includes(url.hostname) || listed.includes(url.host)) return 'any';
    if (await isUpstreamPrivate()) return 'any';
    const address = addressIn(url);
    if (address !== undefined && isPrivateAddress(address))
      throw refuse(`${url.hostname}, which ${refusedAddress(url.hostname, address)}`);
    if (!proxies.has(url.hostname)) return 'public';
    const advice = `if this is intended, add "${url.hostname}" to upstream.redirectHosts`;
    throw refuse(`the forward proxy ${url.hostname}; ${advice}`);
  };
}
