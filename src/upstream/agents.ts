import {Agent as HttpAgent} from 'node:http';
import {Agent as HttpsAgent} from 'node:https';
import {createSecureContext, getCACertificates} from 'node:tls';

export interface Agents {
  http: HttpAgent;
  https: HttpsAgent;
  /** Ends idle connections; those in use end when their request does. */
  close(): void;
}

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
  const http = new HttpAgent(options);
  const https = new HttpsAgent({...options, ...trust});

  return {
    http,
    https,
    close() {
      for (const agent of [http, https]) {
        agent.maxFreeSockets = 0;
        for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
      }
    },
  };
}
