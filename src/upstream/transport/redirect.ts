import {UpstreamFailure} from '../port.ts';
import {discard} from './body.ts';
import {waitFor} from './budget.ts';
import type {RedirectNetwork} from './redirect-hosts.ts';
import {header, type Reply, type RequestOptions, type Send} from './request.ts';

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Those that keep the method and the body (RFC 9110, section 15.4); after the others a write would become a GET. */
const KEEPING = new Set([307, 308]);
const MOST = 5;

function targetOf(reply: Reply, method: RequestOptions['method']): URL | undefined {
  const followed = method === 'GET' || method === 'HEAD' ? REDIRECTS : KEEPING;
  const location = followed.has(reply.status) ? header(reply.headers, 'location') : undefined;
  if (location === undefined) return undefined;
  const {host} = reply.url;
  const target = URL.parse(location, reply.url.href);
  if (!target) throw new UpstreamFailure('protocol', host, 'redirects to what is no URL');
  const secure = target.protocol === 'https:';
  if (!secure && target.protocol !== 'http:') {
    throw new UpstreamFailure('protocol', host, `redirects to ${target.protocol}, which is not followed`);
  }
  if (!secure && reply.url.protocol === 'https:') {
    throw new UpstreamFailure(
      'protocol',
      host,
      `redirects from https to http://${target.host}, which is refused`,
    );
  }
  return target;
}

/**
 * Sends a request and follows up to five redirects; those of a write only where they keep it one. `Authorization` stays
 * with the origin (scheme, host and port) that it was meant for, and does not come back when the way leads there again
 * (RFC 9110, section 15.4).
 * @param networkOf the network by which another host may be asked.
 * @throws UpstreamFailure `protocol` on a redirect that leads nowhere, to plain http, to an address that `networkOf`
 * refuses, or round and round.
 */
export async function follow(
  send: Send,
  request: RequestOptions,
  signal: AbortSignal,
  networkOf: RedirectNetwork,
): Promise<Reply> {
  let current = request;
  for (let hops = 0; hops <= MOST; hops++) {
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
  throw new UpstreamFailure('protocol', request.url.host, `redirects more than ${MOST} times`);
}
