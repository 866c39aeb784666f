import {Agent as HttpAgent} from 'node:http';
import {Agent as HttpsAgent} from 'node:https';
import {createSecureContext, getCACertificates} from 'node:tls';
import {createPublicLookup} from './private-address.ts';

/** Which addresses a connection may be made to: all, or none that is private. */
export type Network = 'any' | 'public';

export interface Agents extends Record<Network, {http: HttpAgent; https: HttpsAgent}> {
  /** Ends idle connections; those in use end when their request does. */
  close(): void;
}

const PROXIES = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY'] as const;

/** The host names of the forward proxies that the environment names. */
export const proxyNames = (env: NodeJS.ProcessEnv): ReadonlySet<string> =>
  new Set(PROXIES.flatMap((name) => URL.parse(env[name] ?? '')?.hostname ?? []));

/** Connections that are kept for the next request. */
const IDLE_SOCKETS = 64;

/**
 * The keep-alive connections of one upstream.
 * @param ca PEM texts of authorities trusted in addition to the system's.
 * @param env where `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (either case) are read.
 */
export function createAgents(ca: readonly string[], env: NodeJS.ProcessEnv): Agents {
  const options = {keepAlive: true, maxFreeSockets: IDLE_SOCKETS, scheduling: 'lifo', proxyEnv: env} as const;
  // One context for all connections: building it parses every root certificate.
  const trust =
    ca.length > 0 ? {secureContext: createSecureContext({ca: [...getCACertificates('default'), ...ca]})} : {};
  // Pools of their own: a connection that was made to a private address is not found again by who may not make it.
  const guarded = {...options, lookup: createPublicLookup(proxyNames(env))};
  const any = {http: new HttpAgent(options), https: new HttpsAgent({...options, ...trust})};
  const open = {http: new HttpAgent(guarded), https: new HttpsAgent({...guarded, ...trust})};

  return {
    any,
    public: open,
    close() {
      for (const agent of [any.http, any.https, open.http, open.https]) {
        agent.maxFreeSockets = 0;
        for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
      }
    },
  };
}
