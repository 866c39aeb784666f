import {createHash, randomUUID} from 'node:crypto';
import {once} from 'node:events';
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import type {AddressInfo} from 'node:net';
import {buffer} from 'node:stream/consumers';

/** A small legacy registry in memory: push, pull and delete, without the Referrers API. */
export interface LegacyRegistry {
  url: string;
  /** `127.0.0.1:PORT` */
  host: string;
  /** The requests that it received, oldest first: `GET /v2/…`. */
  readonly requests: string[];
  /** When false, it is read-only. */
  writable: boolean;
  /** Ends it, connections included. */
  stop(): Promise<void>;
}

interface Content {
  bytes: Buffer;
  mediaType: string;
}

interface Repository {
  manifests: Map<string, Content>;
  tags: Map<string, string>;
  blobs: Map<string, Buffer>;
}

const PATH = /^\/v2\/(?<name>.+?)\/(?<kind>manifests|blobs\/uploads|blobs|tags|referrers)\/(?<rest>[^/]*)$/;
const INDEX = 'application/vnd.oci.image.index.v1+json';
const sha256 = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** @param referrers adds the Referrers API, for comparison. */
export async function startLegacyRegistry({referrers = false} = {}): Promise<LegacyRegistry> {
  const repositories = new Map<string, Repository>();
  const requests: string[] = [];
  const repositoryOf = (name: string): Repository => {
    const known = repositories.get(name) ?? {manifests: new Map(), tags: new Map(), blobs: new Map()};
    repositories.set(name, known);
    return known;
  };

  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    if (!registry.writable && request.method !== 'GET' && request.method !== 'HEAD') {
      return send(response, 403, Buffer.from('{"errors":[{"code":"DENIED"}]}'));
    }
    answer(request, response, repositoryOf, referrers).catch(() => response.destroy());
  });
  // So that a client that pauses does not send its next request on a connection that is just being closed.
  server.keepAliveTimeout = 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const registry: LegacyRegistry = {
    url: `http://${host}`,
    host,
    requests,
    writable: true,
    async stop() {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, 'close');
    },
  };
  return registry;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  repositoryOf: (name: string) => Repository,
  hasReferrers: boolean,
) {
  const {pathname, searchParams} = new URL(request.url ?? '/', 'http://registry');
  if (pathname === '/v2/') return send(response, 200, Buffer.from('{}'));
  const {name, kind, rest} = PATH.exec(pathname)?.groups ?? {};
  if (name === undefined || rest === undefined) return missing(response);
  const repository = repositoryOf(name);
  if (kind === 'blobs/uploads')
    return upload(request, response, repository, name, searchParams.get('digest'));
  if (kind === 'manifests' && request.method === 'PUT')
    return putManifest(request, response, repository, rest);
  if (kind === 'referrers')
    return hasReferrers ? listReferrers(response, repository, rest) : missing(response);
  if (kind === 'manifests' && request.method === 'DELETE') return deleteManifest(response, repository, rest);
  if (kind === 'manifests') {
    const digest = repository.tags.get(rest) ?? rest;
    const manifest = repository.manifests.get(digest);
    if (!manifest) return missing(response);
    response.setHeader('Docker-Content-Digest', digest);
    return send(response, 200, manifest.bytes, manifest.mediaType);
  }
  if (kind === 'blobs') return sendBlob(request, response, repository.blobs.get(rest));
  return send(response, 200, Buffer.from(JSON.stringify({name, tags: [...repository.tags.keys()].sort()})));
}

async function upload(
  request: IncomingMessage,
  response: ServerResponse,
  repository: Repository,
  name: string,
  digest: string | null,
): Promise<void> {
  const bytes = await buffer(request);
  if (request.method === 'POST') {
    response.setHeader('Location', `/v2/${name}/blobs/uploads/${randomUUID()}`);
    return send(response, 202, Buffer.alloc(0));
  }
  if (digest !== sha256(bytes))
    return send(response, 400, Buffer.from('{"errors":[{"code":"DIGEST_INVALID"}]}'));
  repository.blobs.set(digest, bytes);
  response.setHeader('Location', `/v2/${name}/blobs/${digest}`);
  return send(response, 201, Buffer.alloc(0));
}

async function putManifest(
  request: IncomingMessage,
  response: ServerResponse,
  repository: Repository,
  reference: string,
) {
  const bytes = await buffer(request);
  const digest = sha256(bytes);
  repository.manifests.set(digest, {bytes, mediaType: request.headers['content-type'] ?? ''});
  if (!reference.startsWith('sha256:')) repository.tags.set(reference, digest);
  response.setHeader('Docker-Content-Digest', digest);
  return send(response, 201, Buffer.alloc(0));
}

/** By tag, deletes only the tag; by digest, the manifest and all of its tags. */
function deleteManifest(response: ServerResponse, repository: Repository, reference: string): void {
  const isThere = repository.tags.delete(reference) || repository.manifests.delete(reference);
  for (const [tag, digest] of repository.tags) if (digest === reference) repository.tags.delete(tag);
  if (isThere) send(response, 202, Buffer.alloc(0));
  else missing(response);
}

function listReferrers(response: ServerResponse, repository: Repository, subject: string): void {
  const manifests = [...repository.manifests].flatMap(([digest, {bytes, mediaType}]) => {
    const body = JSON.parse(bytes.toString());
    if (body.subject?.digest !== subject) return [];
    const artifactType = body.artifactType ?? body.config?.mediaType;
    return [{mediaType, digest, size: bytes.length, artifactType, annotations: body.annotations}];
  });
  send(response, 200, Buffer.from(JSON.stringify({schemaVersion: 2, mediaType: INDEX, manifests})), INDEX);
}

function sendBlob(request: IncomingMessage, response: ServerResponse, blob: Buffer | undefined): void {
  const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
  if (!blob) missing(response);
  else if (start === 0) send(response, 200, blob, 'application/octet-stream');
  else {
    response.setHeader('Content-Range', `bytes ${start}-${blob.length - 1}/${blob.length}`);
    send(response, 206, blob.subarray(start), 'application/octet-stream');
  }
}

const missing = (response: ServerResponse): void =>
  send(response, 404, Buffer.from('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not found"}]}'));

function send(response: ServerResponse, status: number, body: Buffer, mediaType = 'application/json'): void {
  response.writeHead(status, {'Content-Type': mediaType, 'Content-Length': body.length});
  response.end(response.req.method === 'HEAD' ? undefined : body);
}
