import {once} from 'node:events';
import {createServer} from 'node:http';
import {setTimeout as delay} from 'node:timers/promises';
import type {Scope} from '../rig/scope.ts';

/** What is served, by path. Everything else is a 404. */
export type ServedContents = Map<string, {mediaType: string; bytes: Buffer}>;

/**
 * A registry that serves the given contents, each response after `latency` milliseconds.
 * @returns its URL; it ends with the scope.
 */
export async function startContents(
  scope: Scope,
  contents: ServedContents,
  latency: number,
): Promise<string> {
  const server = createServer(async (request, response) => {
    if (latency > 0) await delay(latency);
    const found = contents.get(request.url ?? '');
    if (!found) return response.writeHead(404, {'content-length': 0}).end();
    response.writeHead(200, {'content-type': found.mediaType, 'content-length': found.bytes.length});
    response.end(request.method === 'HEAD' ? undefined : found.bytes);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scope.defer(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`;
}
