import {once} from 'node:events';
import {createServer, type ServerResponse} from 'node:http';
import {ownPort} from '../rig/port.ts';

/** How a token service that is down answers. */
export type TokenOutage = 'status 503' | 'HTML page with 200' | 'silence';

/** Hands out tokens for an upstream (distribution, "Token Authentication Specification"). */
export interface TokenService {
  /** Of a `WWW-Authenticate` header. */
  challenge(repository: string): string;
  accepts(authorization: string | undefined): boolean;
  /** Makes every token that was handed out invalid. */
  revoke(): void;
  /** Answers like this; undefined with tokens. */
  fail(outage: TokenOutage | undefined): void;
  refuse(): Promise<void>;
  listen(): Promise<void>;
}

/** @param host the name under which the server under test finds it. */
export function createTokenService(host: string): TokenService {
  let epoch = 0;
  let outage: TokenOutage | undefined;
  let port: number | undefined;
  const token = () => `chaos-token-${epoch}`;
  const answer = (response: ServerResponse) => {
    if (outage === 'silence') return;
    if (outage === 'status 503') return void response.writeHead(503).end('down');
    if (outage) return void response.writeHead(200, {'content-type': 'text/html'}).end('<html>Log in</html>');
    response.writeHead(200, {'content-type': 'application/json'});
    response.end(JSON.stringify({token: token(), expires_in: 300}));
  };
  const server = createServer((request, response) => {
    request.resume();
    answer(response);
  });
  return {
    challenge: (repository) =>
      `Bearer realm="http://${host}:${port}/token",service="${host}",scope="repository:${repository}:pull"`,
    accepts: (authorization) => authorization === `Bearer ${token()}`,
    revoke() {
      epoch += 1;
    },
    fail(next) {
      outage = next;
    },
    async refuse() {
      if (!server.listening) return;
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
    async listen() {
      if (server.listening) return;
      port ??= await ownPort();
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
    },
  };
}
