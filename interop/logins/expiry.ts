import {once} from 'node:events';
import {readFile} from 'node:fs/promises';
import type {IncomingMessage, ServerResponse} from 'node:http';
import {Agent, createServer, request} from 'node:https';
import {setTimeout as delay} from 'node:timers/promises';
import {ownPort} from '../../rig/port.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Certificates} from './certificates.ts';

/** A request and the status of its answer. */
export interface Passed {
  method: string;
  /** Without its query. */
  path: string;
  /** The scheme of its `Authorization`: `Bearer`, `Basic`, or nothing. */
  scheme: string;
  status: number;
}

export interface ExpiryOptions {
  /** The name by which clients call it and the server behind it. */
  name: string;
  certificates: Certificates;
  /** The port of the server behind it, which has the same certificate. */
  port: number;
  /** Milliseconds for which tokens are still valid by the client's clock when it gets them. */
  left: number;
  /** Lets the tokens of the server expire. */
  expire(): Promise<void>;
}

/** A TLS proxy before a server, which lets the server's tokens expire while a client is at work. */
export interface Expiry {
  readonly port: number;
  /**
   * Lets the tokens expire at the next answer of which this is true. The client gets that answer afterwards: when all its
   * other requests have been answered, and when its tokens have expired by its own clock as well.
   */
  expireAfter(is: (passed: Passed) => boolean): void;
  /** Everything that passed since they expired; undefined while they have not. */
  passed(): readonly Passed[] | undefined;
}

/** Listens until the scope ends. */
export async function createExpiry(scope: Scope, options: ExpiryOptions): Promise<Expiry> {
  const {name, certificates, port: behind, left, expire} = options;
  const read = (path: string) => readFile(path, 'utf8');
  const [ca, cert, key] = [
    await read(certificates.ca),
    await read(certificates.cert),
    await read(certificates.key),
  ];
  const agent = new Agent({keepAlive: true, ca, servername: name});
  let isLast: ((passed: Passed) => boolean) | undefined;
  let expired = false;
  let underWay = 0;
  let latest = 0;
  let passed: Passed[] | undefined;

  const answer = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    latest = Date.now();
    const {method = '', url = '', headers} = incoming;
    const onward = request({agent, host: '127.0.0.1', port: behind, method, path: url, headers});
    outgoing.on('close', () => onward.destroy());
    incoming.pipe(onward);
    const [response] = (await once(onward, 'response')) as [IncomingMessage];
    const status = response.statusCode ?? 0;
    const [scheme = ''] = (headers.authorization ?? '').split(' ');
    const entry = {method, path: url.split('?', 1)[0] ?? '', scheme, status};
    passed?.push(entry);
    if (!expired && isLast?.(entry)) {
      expired = true;
      while (underWay > 1 || Date.now() - latest < left) await delay(25);
      await expire();
      passed = [];
    }
    outgoing.writeHead(status, response.rawHeaders);
    response.on('error', () => outgoing.destroy());
    response.pipe(outgoing);
  };
  const server = createServer({cert, key}, (incoming, outgoing) => {
    underWay += 1;
    outgoing.once('close', () => {
      underWay -= 1;
    });
    answer(incoming, outgoing).catch(() => outgoing.destroy());
  });
  const port = await ownPort();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  scope.defer(() => {
    server.close();
    server.closeAllConnections();
    agent.destroy();
  });
  return {
    port,
    expireAfter: (is) => {
      isLast = is;
    },
    passed: () => passed,
  };
}
