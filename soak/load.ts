import {createHash} from 'node:crypto';
import {Agent, type IncomingMessage, request} from 'node:http';
import {createRandom, type Random} from '../fuzz/mutations.ts';
import {imageOf, type SoakContent, type SoakImage} from './images.ts';

/** What the clients did and saw. */
export interface LoadCounts {
  requests: number;
  pulls: number;
  pushes: number;
  aborted: number;
  /** Requests with an answer that they must not have had, the first ones as text. */
  failures: string[];
}

export interface LoadOptions {
  /** Of the server, as `http://host:port`. */
  url: string;
  seed: number;
  /** That are at work at the same time. */
  clients: number;
  /** Ends the load; clients finish what they have begun. */
  signal: AbortSignal;
}

/** Images that are pulled again and again. */
const HOT_IMAGES = 30;
/** The share of pulls that are of these. */
const HOT = 0.6;
/** Images that are pushed and deleted again and again; few, since what is pushed is never evicted. */
const PUSHED_IMAGES = 20;
/** A client is replaced by a new one, with connections of its own, after this many pieces of work. */
const WORK_PER_CLIENT = 40;
const MAX_FAILURES = 20;

/** Pulls, pushes, deletes, lists and aborts at full speed until the signal. */
export async function applyLoad(
  {url, seed, clients, signal}: LoadOptions,
  counts: LoadCounts,
): Promise<void> {
  let images = 0;
  const work = async (random: Random) => {
    while (!signal.aborted) {
      const agent = new Agent({keepAlive: true, maxSockets: 4});
      const client = new SoakClient(url, agent, random, counts);
      for (let piece = 0; piece < WORK_PER_CLIENT && !signal.aborted; piece++) {
        const name = random.chance(HOT) ? `hot/i${random.below(HOT_IMAGES)}` : `cold/i${images++}`;
        await client.work(name).catch((error: unknown) => {
          counts.failures.push(error instanceof Error ? error.message : String(error));
          if (counts.failures.length > MAX_FAILURES) throw error;
        });
      }
      agent.destroy();
    }
  };
  await Promise.all(Array.from({length: clients}, (_, index) => work(createRandom(seed + index))));
}

interface SentRequest {
  method?: string;
  path: string;
  headers?: Record<string, string>;
  body?: Buffer;
}

class SoakClient {
  readonly #url: string;
  readonly #agent: Agent;
  readonly #random: Random;
  readonly #counts: LoadCounts;

  constructor(url: string, agent: Agent, random: Random, counts: LoadCounts) {
    this.#url = url;
    this.#agent = agent;
    this.#random = random;
    this.#counts = counts;
  }

  /** One piece of work. @throws Error that names the request whose answer is wrong */
  work(name: string): Promise<void> {
    switch (this.#random.below(12)) {
      case 0:
        return this.#abort(imageOf(name));
      case 1:
        return this.#push(imageOf(`apps.local/a${this.#random.below(PUSHED_IMAGES)}`));
      case 2:
        return this.#list(imageOf(name));
      case 3:
        return this.#range(imageOf(name));
      default:
        return this.#pull(imageOf(name));
    }
  }

  async #pull({repository, index, manifest, blobs}: SoakImage): Promise<void> {
    await this.#expect(index, {path: `${repository}/manifests/1`});
    await this.#expect(manifest, {path: `${repository}/manifests/${manifest.digest}`});
    await Promise.all(blobs.map((blob) => this.#expect(blob, {path: `${repository}/blobs/${blob.digest}`})));
    this.#counts.pulls += 1;
  }

  async #list({repository, index, referrer}: SoakImage): Promise<void> {
    const list = await this.#ask({path: `${repository}/referrers/${index.digest}`});
    if (list.status !== 200 || !list.body.includes(referrer.digest))
      throw new Error(`${repository}: ${list.status}, and the list lacks its referrer: ${list.body}`);
    await this.#expect(referrer, {path: `${repository}/manifests/${referrer.digest}`});
    await this.#ask({path: `${repository}/tags/list`});
  }

  async #range({repository, blobs}: SoakImage): Promise<void> {
    const blob = blobs.at(-1);
    if (!blob) return;
    const [first, last] = [1000, 1000 + this.#random.below(500_000)];
    const headers = {range: `bytes=${first}-${last}`};
    const {status, body} = await this.#ask({path: `${repository}/blobs/${blob.digest}`, headers});
    if (status !== 206 || !body.equals(blob.bytes.subarray(first, last + 1)))
      throw new Error(`${repository}: ${status} and ${body.length} bytes for bytes ${first} to ${last}`);
  }

  /** Pushes an image, reads it back and deletes it. */
  async #push({repository, manifest, blobs}: SoakImage): Promise<void> {
    for (const {digest, bytes} of blobs) {
      const path = `${repository}/blobs/uploads/?digest=${digest}`;
      await this.#created({method: 'POST', path, body: bytes});
    }
    const headers = {'content-type': manifest.mediaType};
    const path = `${repository}/manifests/${manifest.digest}`;
    await this.#created({method: 'PUT', path, headers, body: manifest.bytes});
    this.#counts.pushes += 1;
    await this.#ask({method: 'DELETE', path});
  }

  async #created(sent: SentRequest): Promise<void> {
    const {status, body} = await this.#ask(sent);
    if (status !== 201) throw new Error(`${sent.method} ${sent.path}: ${status} ${body}`);
  }

  async #expect({digest}: SoakContent, sent: SentRequest): Promise<void> {
    const {status, body} = await this.#ask(sent);
    const got = `sha256:${createHash('sha256').update(body).digest('hex')}`;
    if (status !== 200 || got !== digest)
      throw new Error(`GET ${sent.path}: ${status} with ${body.length} bytes of ${got}`);
  }

  /** Goes away in the middle of a download. */
  async #abort({repository, blobs}: SoakImage): Promise<void> {
    const sent = this.#send({path: `${repository}/blobs/${blobs.at(-1)?.digest}`});
    const response = await sent.response;
    await response[Symbol.asyncIterator]().next();
    response.destroy();
    this.#counts.aborted += 1;
  }

  async #ask(sent: SentRequest): Promise<{status: number; body: Buffer}> {
    const response = await this.#send(sent).response;
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    return {status: response.statusCode ?? 0, body: Buffer.concat(chunks)};
  }

  #send({method = 'GET', path, headers = {}, body}: SentRequest): {response: Promise<IncomingMessage>} {
    this.#counts.requests += 1;
    const {promise: response, resolve, reject} = Promise.withResolvers<IncomingMessage>();
    const length = body === undefined ? {} : {'content-length': String(body.length)};
    const options = {agent: this.#agent, method, headers: {...length, ...headers}};
    request(`${this.#url}/v2/${path}`, options, resolve).on('error', reject).end(body);
    return {response};
  }
}
