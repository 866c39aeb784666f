import {once} from 'node:events';
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import type {Socket} from 'node:net';
import {setTimeout as delay} from 'node:timers/promises';
import type {Content} from '../rig/image.ts';
import {ownPort} from '../rig/port.ts';
import type {Scope} from '../rig/scope.ts';
import {type Artifact, fallbackIndex, referrerDescriptor} from './catalog.ts';
import {createSpoiling, type Spoil, type Spoiling, type SpoilPlan} from './spoiling.ts';
import {createTokenService, type TokenService} from './token-service.ts';

export interface UpstreamOptions {
  /** Its host name, which only the server under test resolves. */
  host: string;
  /** Without it, referrers are listed by fallback tags. */
  referrersApi: boolean;
  /** Whether requests need a token. */
  tokens: boolean;
}

/** A registry that serves what it was given, and fails as it is told to. */
export interface Upstream {
  readonly host: string;
  /** As the server under test is configured: `http://HOST:PORT`. */
  readonly url: string;
  readonly tokens: TokenService | undefined;
  /** Requests received so far. */
  requests(): number;
  /** The `Range` header of the latest GET of a blob; undefined when it had none. */
  latestRange(digest: string): string | undefined;
  /** How many answers were spoiled so far, by kind. */
  readonly spoiled: ReadonlyMap<Spoil, number>;
  add(...artifacts: Artifact[]): void;
  /** Drops a repository. */
  forget(repository: string): void;
  /** Points a tag at another manifest of the same repository. */
  move(repository: string, tag: string, digest: string): void;
  /** Spoils a share of the answers; undefined none. */
  spoil(plan: SpoilPlan | undefined): void;
  /** Sends bodies slowly, in bytes per second; undefined as fast as it can. */
  throttle(rate: number | undefined): void;
  /** Closes all open connections. */
  disconnect(): void;
  /** Refuses new connections and closes open ones. */
  refuse(): Promise<void>;
  /** Listens again, on the same port. */
  listen(): Promise<void>;
}

const SILENCE_MS = 60_000;
const MAX_LATENCY_MS = 400;
const CHUNK = 16 * 1024;

interface Repository {
  manifests: Map<string, Content>;
  blobs: Map<string, Content>;
  tags: Map<string, string>;
  referrers: Map<string, Artifact[]>;
}

/** Starts a registry on 127.0.0.1 that ends with the scope. */
export async function startUpstream(scope: Scope, options: UpstreamOptions): Promise<Upstream> {
  const upstream = new ScriptedRegistry(options, await ownPort());
  await upstream.listen();
  scope.defer(() => upstream.refuse());
  if (upstream.tokens) {
    const {tokens} = upstream;
    await tokens.listen();
    scope.defer(() => tokens.refuse());
  }
  return upstream;
}

class ScriptedRegistry implements Upstream {
  readonly host: string;
  readonly url: string;
  readonly tokens: TokenService | undefined;
  readonly spoiled = new Map<Spoil, number>();
  readonly #port: number;
  readonly #referrersApi: boolean;
  readonly #repositories = new Map<string, Repository>();
  readonly #ranges = new Map<string, string | undefined>();
  readonly #server = createServer((request, response) => {
    this.#answer(request, response).catch(() => response.destroy());
  });
  #requests = 0;
  #spoiling: Spoiling | undefined;
  #rate: number | undefined;

  constructor({host, referrersApi, tokens}: UpstreamOptions, port: number) {
    this.host = host;
    this.#port = port;
    this.url = `http://${host}:${port}`;
    this.#referrersApi = referrersApi;
    this.tokens = tokens ? createTokenService(host) : undefined;
  }

  requests(): number {
    return this.#requests;
  }

  latestRange(digest: string): string | undefined {
    return this.#ranges.get(digest);
  }

  add(...artifacts: Artifact[]): void {
    for (const artifact of artifacts) this.#addOne(artifact);
  }

  forget(repository: string): void {
    this.#repositories.delete(repository);
  }

  move(repository: string, tag: string, digest: string): void {
    this.#repository(repository).tags.set(tag, digest);
  }

  spoil(plan: SpoilPlan | undefined): void {
    this.#spoiling = plan && createSpoiling(plan);
  }

  throttle(rate: number | undefined): void {
    this.#rate = rate;
  }

  disconnect(): void {
    this.#server.closeAllConnections();
  }

  async refuse(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async listen(): Promise<void> {
    if (this.#server.listening) return;
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  #repository(name: string): Repository {
    const known = this.#repositories.get(name);
    if (known) return known;
    const made = {manifests: new Map(), blobs: new Map(), tags: new Map(), referrers: new Map()};
    this.#repositories.set(name, made);
    return made;
  }

  #addOne(artifact: Artifact): void {
    const repository = this.#repository(artifact.repository);
    for (const each of [artifact.manifest, ...artifact.children]) repository.manifests.set(each.digest, each);
    for (const blob of artifact.blobs) repository.blobs.set(blob.digest, blob);
    if (artifact.subject === undefined) {
      repository.tags.set(artifact.tag, artifact.manifest.digest);
      return;
    }
    const all = [...(repository.referrers.get(artifact.subject) ?? []), artifact];
    repository.referrers.set(artifact.subject, all);
    if (this.#referrersApi) return;
    const index = fallbackIndex(all);
    repository.manifests.set(index.digest, index);
    repository.tags.set(artifact.subject.replace(':', '-'), index.digest);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#requests += 1;
    const {method = 'GET', url = '/'} = request;
    request.resume();
    const spoil = this.#spoiling?.next(`${method} ${url}`);
    if (spoil) this.spoiled.set(spoil, (this.spoiled.get(spoil) ?? 0) + 1);
    if (spoil && (await spoiledBeforehand(spoil, response))) return;
    if (this.tokens && !this.tokens.accepts(request.headers.authorization)) {
      response.writeHead(401, {'www-authenticate': this.tokens.challenge(repositoryIn(url))}).end();
      return;
    }
    const found = this.#find(url);
    if (!found) return void notFound(response);
    await this.#send(request, response, found, spoil);
  }

  #find(url: string): Content | undefined {
    const {pathname} = new URL(url, this.url);
    if (pathname === '/v2/') return {digest: '', mediaType: 'application/json', bytes: Buffer.from('{}')};
    const [, name = '', kind, reference = ''] =
      /^\/v2\/(.+)\/(manifests|blobs|referrers|tags)\/([^/]+)$/.exec(pathname) ?? [];
    const repository = this.#repositories.get(name);
    if (!repository) return undefined;
    if (kind === 'blobs') return repository.blobs.get(reference);
    if (kind === 'manifests') return repository.manifests.get(repository.tags.get(reference) ?? reference);
    if (kind === 'tags')
      return jsonContent('application/json', {name, tags: [...repository.tags.keys()].sort()});
    if (!this.#referrersApi) return undefined;
    const manifests = (repository.referrers.get(reference) ?? []).map(referrerDescriptor);
    return jsonContent('application/vnd.oci.image.index.v1+json', {schemaVersion: 2, manifests});
  }

  async #send(
    {method, url = '', headers}: IncomingMessage,
    response: ServerResponse,
    {digest, mediaType, bytes}: Content,
    spoil: Spoil | undefined,
  ): Promise<void> {
    const isBlob = url.includes('/blobs/');
    if (isBlob && method === 'GET') this.#ranges.set(digest, headers.range);
    const [, from, until] = (isBlob && /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '')) || [];
    const start = Math.min(Number(from ?? 0), bytes.length);
    const end = Math.min(until ? Number(until) + 1 : bytes.length, bytes.length);
    const body = bytes.subarray(start, end);
    response.writeHead(from === undefined ? 200 : 206, {
      'content-type': isBlob ? 'application/octet-stream' : mediaType,
      'content-length': body.length,
      ...(digest === '' ? {} : {'docker-content-digest': digest}),
      ...(from === undefined ? {} : {'content-range': `bytes ${start}-${end - 1}/${bytes.length}`}),
    });
    if (method === 'HEAD') return void response.end();
    // A list has no digest: nobody can tell that one of its bytes is wrong.
    if (spoil === 'wrong bytes' && digest !== '') return void response.end(withOneBitFlipped(body));
    const {socket} = response;
    if (spoil === 'reset in the body' || spoil === 'truncated body') {
      await writeAll(response, body.subarray(0, Math.floor(body.length / 2)), this.#rate);
      return void breakOff(socket, spoil === 'reset in the body');
    }
    await writeAll(response, body, this.#rate);
    response.end();
  }
}

const jsonContent = (mediaType: string, value: unknown): Content => ({
  digest: '',
  mediaType,
  bytes: Buffer.from(JSON.stringify(value)),
});

/** Answers, or fails to, before the registry is asked. @returns whether that was all. */
async function spoiledBeforehand(spoil: Spoil, response: ServerResponse): Promise<boolean> {
  switch (spoil) {
    case 'late answer':
      await delay(MAX_LATENCY_MS);
      return false;
    case 'silence':
      await delay(SILENCE_MS, undefined, {ref: false});
      return true;
    case 'reset before the answer':
      breakOff(response.socket, true);
      return true;
    case 'HTML page with 200':
      response.writeHead(200, {'content-type': 'text/html'}).end('<html><body>Maintenance</body></html>');
      return true;
    case 'status 500':
    case 'status 503':
      response.writeHead(Number(spoil.slice(-3)), {'content-type': 'text/plain'}).end('it broke');
      return true;
    case 'status 429 with Retry-After':
      response.writeHead(429, {'retry-after': '1'}).end('{"errors":[{"code":"TOOMANYREQUESTS"}]}');
      return true;
    default:
      return false;
  }
}

function notFound(response: ServerResponse): void {
  response
    .writeHead(404, {'content-type': 'application/json'})
    .end('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}');
}

const repositoryIn = (url: string): string =>
  /^\/v2\/(.+)\/(?:manifests|blobs|referrers|tags)\//.exec(url)?.[1] ?? '';

function withOneBitFlipped(bytes: Buffer): Buffer {
  const wrong = Buffer.from(bytes);
  const middle = Math.floor(wrong.length / 2);
  wrong[middle] = (wrong[middle] ?? 0) ^ 1;
  return wrong;
}

function breakOff(socket: Socket | null, withReset: boolean): void {
  if (withReset) socket?.resetAndDestroy();
  else socket?.end();
}

async function writeAll(response: ServerResponse, bytes: Buffer, rate: number | undefined): Promise<void> {
  for (let sent = 0; sent < bytes.length && !response.destroyed; sent += CHUNK) {
    const chunk = bytes.subarray(sent, sent + CHUNK);
    const {promise, resolve} = Promise.withResolvers<void>();
    response.once('close', resolve);
    response.write(chunk, () => resolve());
    await promise;
    response.off('close', resolve);
    if (rate !== undefined) await delay((chunk.length / rate) * 1000);
  }
}
