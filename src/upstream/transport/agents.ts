import {Agent as HttpAgent} from 'node:http';
import {Agent as HttpsAgent} from 'node:https';
import {createSecureContext, getCACertificates} from 'node:tls';
import {createPublicLookup} from './private-address.ts';

/** Which addresses a connection may be made to: any, or only public ones. */
export type Network = 'any' | 'public';

export interface Agents extends Record<Network, {http: HttpAgent; https: HttpsAgent}> {
  /** Ends idle connections; those in use end with their request. */
  close(): void;
}

const PROXY_VARIABLES = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY'] as const;

/** The host names of the forward proxies named in the environment. */
export const proxyNames = (env: NodeJS.ProcessEnv): ReadonlySet<string> =>
  new Set(PROXY_VARIABLES.flatMap((name) => URL.parse(env[name] ?? '')?.hostname ?? []));

/** Idle connections that each agent keeps. */
const MAX_IDLE_SOCKETS = 64;

/**
 * Creates the keep-alive connections of one upstream.
 * @param ca PEM texts of authorities trusted in addition to the system's.
 * @param env where `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (either case) are read.
 */
export function createAgents(ca: readonly string[], env: NodeJS.ProcessEnv): Agents {
  const options = {
    keepAlive: true,
    maxFreeSockets: MAX_IDLE_SOCKETS,
    scheduling: 'lifo',
    proxyEnv: env,
  } as const;
  // One context for all connections: building it parses every root certificate.
  const trust =
    ca.length > 0 ? {secureContext: createSecureContext({ca: [...getCACertificates('default'), ...ca]})} : {};
  // Separate pools: a request limited to public addresses must not reuse a connection to a private one.
  const publicOnly = {...options, lookup: createPublicLookup(proxyNames(env))};
  const agents = {
    any: {http: new HttpAgent(options), https: new HttpsAgent({...options, ...trust})},
    public: {http: new HttpAgent(publicOnly), https: new HttpsAgent({...publicOnly, ...trust})},
  };
  const all = [agents.any.http, agents.any.https, agents.public.http, agents.public.https];

  return {
    ...agents,
    close() {
      for (const agent of all) {
        agent.maxFreeSockets = 0;
        for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
      }
    },
  };
}
