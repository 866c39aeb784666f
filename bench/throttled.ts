import {once} from 'node:events';
import {createServer, type ServerResponse} from 'node:http';
import {performance} from 'node:perf_hooks';
import {setTimeout as delay} from 'node:timers/promises';
import type {Scope} from '../rig/scope.ts';
import {blobPath, manifestPath, type ServedArtifact} from './artifact.ts';

const CHUNK = 64 * 1024;
/** The most that a late timer may make up for, so that the link is never much faster than it should be. */
const BURST = 1024 * 1024;

/**
 * A registry behind a slow link: serves the artifacts, all blobs together at `rate` bytes per second.
 * @returns its URL; it ends with the scope.
 */
export async function startThrottled(
  scope: Scope,
  artifacts: readonly ServedArtifact[],
  rate: number,
): Promise<string> {
  const contents = new Map<string, {bytes: Buffer; mediaType: string; digest: string; slow: boolean}>();
  for (const artifact of artifacts) {
    for (const blob of artifact.blobs) contents.set(blobPath(artifact, blob.digest), {...blob, slow: true});
    for (const reference of [artifact.tag, artifact.manifest.digest]) {
      contents.set(manifestPath(artifact, reference), {...artifact.manifest, slow: false});
    }
  }
  const link = new Link(rate);
  const server = createServer((request, response) => {
    if (request.url === '/v2/') return response.end('{}');
    const found = contents.get(request.url ?? '');
    if (!found) return response.writeHead(404).end();
    response.writeHead(200, {
      'content-type': found.mediaType,
      'content-length': found.bytes.length,
      'docker-content-digest': found.digest,
    });
    if (request.method === 'HEAD') return response.end();
    if (!found.slow) return response.end(found.bytes);
    trickle(response, found.bytes, link).catch(() => response.destroy());
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

/** Shared by all answers: each gets a chunk when there is credit, and asks again. */
class Link {
  readonly #rate: number;
  #credit = CHUNK;
  #before = performance.now();

  constructor(rate: number) {
    this.#rate = rate;
  }

  /** Whether a chunk may be sent now. */
  take(): boolean {
    const now = performance.now();
    this.#credit = Math.min(BURST, this.#credit + ((now - this.#before) * this.#rate) / 1000);
    this.#before = now;
    if (this.#credit < CHUNK) return false;
    this.#credit -= CHUNK;
    return true;
  }
}

async function trickle(response: ServerResponse, bytes: Buffer, link: Link): Promise<void> {
  for (let sent = 0; sent < bytes.length && !response.destroyed; ) {
    if (response.writableNeedDrain || !link.take()) {
      await delay(1);
      continue;
    }
    response.write(bytes.subarray(sent, sent + CHUNK));
    sent += CHUNK;
  }
  response.end();
}
