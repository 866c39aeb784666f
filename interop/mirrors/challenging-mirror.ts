import {once} from 'node:events';
import {readFile} from 'node:fs/promises';
import {createServer} from 'node:https';
import {text} from 'node:stream/consumers';
import {ownPort} from '../../rig/port.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Certificates} from '../logins/certificates.ts';

/** The ways in which registries ask for a login. */
export const CHALLENGES = ['Bearer', 'Basic'] as const;

/** A mirror that lets nobody in, and notes what clients show it. */
export interface ChallengingMirror {
  readonly port: number;
  /** The number of requests that reached it. */
  requests(): number;
  /** The names of the users whose passwords were sent to it. */
  users(): ReadonlySet<string>;
}

export interface MirrorOptions {
  /** The name by which clients call it. */
  name: string;
  certificates: Certificates;
  challenge: (typeof CHALLENGES)[number];
}

/** Listens until the scope ends. It answers every request 401 with the challenge, at its token service as well. */
export async function createChallengingMirror(
  scope: Scope,
  {name, certificates, challenge}: MirrorOptions,
): Promise<ChallengingMirror> {
  const users = new Set<string>();
  let requests = 0;
  const [cert, key] = [await readFile(certificates.cert), await readFile(certificates.key)];
  const parameters =
    challenge === 'Basic' ? 'realm="mirror"' : `realm="https://${name}/token",service="mirror"`;
  const headers = {'www-authenticate': `${challenge} ${parameters}`, 'content-type': 'application/json'};
  const server = createServer({cert, key}, async (incoming, outgoing) => {
    requests += 1;
    const form = new URLSearchParams(await text(incoming).catch(() => ''));
    const [, basic = ''] = /^Basic (\S+)$/i.exec(incoming.headers.authorization ?? '') ?? [];
    const [user] = Buffer.from(basic, 'base64').toString().split(':');
    for (const each of [user, form.get('username')]) if (each) users.add(each);
    outgoing.writeHead(401, headers);
    outgoing.end(JSON.stringify({errors: [{code: 'UNAUTHORIZED', message: 'authentication required'}]}));
  });
  const port = await ownPort();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  scope.defer(() => {
    server.close();
    server.closeAllConnections();
  });
  return {port, requests: () => requests, users: () => users};
}
