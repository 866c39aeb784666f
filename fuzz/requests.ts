import {once} from 'node:events';
import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import type {AddressInfo} from 'node:net';
import {setImmediate as nextTurn} from 'node:timers/promises';
import {OCI_INDEX} from '../src/oci/media-type.ts';
import {errorOf, SPEC_CODES} from '../test/http/spec-codes.ts';
import {contentOf, imageManifest, plainManifest, randomBlob} from '../test/support/content.ts';
import {connectRaw, type RawAnswer, type RawConnection} from '../test/support/raw-http.ts';
import {
  brokenOff,
  createRandom,
  htmlPage,
  mutatedBytes,
  mutatedRequest,
  PAGE_MARK,
  type Random,
  type Seeds,
} from './mutations.ts';

/** This share of what is sent are bytes that need not be a request. */
const UNFRAMED = 0.1;
/** Before this share of them, another client sends something and resets its connection. */
const RESETS = 0.1;

const blob = randomBlob(2000);
/** What the upstream has under every name. */
export const image = imageManifest([blob]);
const plain = plainManifest();
const referrer = contentOf(
  Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [],
      artifactType: 'a/b',
      subject: {mediaType: OCI_INDEX, digest: plain.digest, size: plain.bytes.length},
    }),
  ),
);
const seeds: Seeds = {
  digest: blob.digest,
  paths: [
    '/v2/',
    '/v2/_catalog?n=5&last=a',
    '/v2/app/manifests/latest',
    '/v2/org/app/manifests/v1.2.3?ns=ghcr.io',
    `/v2/app/manifests/${image.digest}`,
    `/v2/ghcr.io/org/app/manifests/${image.digest}?ns=ghcr.io`,
    `/v2/app/blobs/${blob.digest}`,
    `/v2/org/app/blobs/${blob.digest}`,
    `/v2/app/blobs/${blob.digest}?ns=ghcr.io`,
    `/v2/ghcr.io/org/app/blobs/${blob.digest}`,
    '/v2/app/tags/list',
    '/v2/ghcr.io/org/app/tags/list?n=10&last=a',
    '/v2/app/blobs/uploads/',
    `/v2/app/blobs/uploads/?mount=${blob.digest}&from=other`,
    '/v2/app/blobs/uploads/0a1b-2c3d',
    `/v2/app/referrers/${image.digest}?artifactType=a`,
    `/v2/ghcr.io/org/app/referrers/${image.digest}`,
    '/metrics',
    '/metrics?name=a',
    `/v2/app/referrers/${image.digest}?artifactType=a&artifactType=b&last=1`,
    `/v2/org/app/referrers/${plain.digest}?ns=ghcr.io`,
    ...['apps.local', 'quay.io'].flatMap((registry) => [
      `/v2/${registry}/app/blobs/uploads/`,
      `/v2/${registry}/app/blobs/uploads/?digest=${blob.digest}`,
      `/v2/${registry}/org/app/blobs/uploads/?mount=${blob.digest}&from=${registry}/app`,
      `/v2/app/blobs/uploads/?ns=${registry}&digest-algorithm=sha256`,
      `/v2/${registry}/app/blobs/${blob.digest}`,
      `/v2/${registry}/app/manifests/latest`,
      `/v2/${registry}/app/manifests/${plain.digest}?tag=a&tag=b`,
      `/v2/${registry}/app/manifests/${referrer.digest}`,
      `/v2/${registry}/app/referrers/${plain.digest}`,
      `/v2/${registry}/app/tags/list`,
    ]),
  ],
  bodies: ['', '{}', blob.bytes, image.bytes, plain.bytes, referrer.bytes].map((body) =>
    body.toString('latin1'),
  ) as [string, ...string[]],
};

/** With uploads that have just begun. */
async function withUploads(port: number): Promise<Seeds> {
  const connection = await connectRaw(port);
  const locations: string[] = [];
  for (let count = 0; count < 12; count++) {
    const registry = count % 3 === 0 ? 'quay.io' : 'apps.local';
    connection.send(
      `POST /v2/${registry}/app/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`,
    );
    const location = (await connection.answer('POST'))?.headers['location'];
    if (location === undefined) throw new Error('no upload');
    locations.push(location, `${location}?digest=${blob.digest}`);
  }
  connection.socket.destroy();
  return {...seeds, paths: [...seeds.paths, ...locations]};
}

/** A server of this process. */
export interface LocalServer {
  url: string;
  close(): void;
}

/**
 * A registry that has one image under every name, except when it answers 404, 500 or a login page.
 * @param seed of the login pages
 */
export async function startMoodyUpstream(seed: number): Promise<LocalServer> {
  let count = 0;
  const random = createRandom(seed);
  const listener = ({url = ''}: IncomingMessage, response: ServerResponse) => {
    count++;
    if (count % ANSWER_KINDS === 0) return void response.writeHead(500).end();
    const {status, headers, body} = answerTo(url, count % ANSWER_KINDS, random);
    response.writeHead(status, {...headers, 'Content-Length': body.length}).end(body);
  };
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** The number of kinds of answers that the upstream cycles through. */
export const ANSWER_KINDS = 4;

function answerTo(url: string, turn: number, random: Random) {
  if (turn === 1) return ABSENT;
  return turn === 2 ? htmlPage(random) : contentAt(url);
}

const ABSENT = {status: 404, headers: {}, body: Buffer.alloc(0) as Buffer};
const TAGS = {status: 200, headers: {}, body: Buffer.from('{"tags":["b","a"]}')};

function contentAt(url: string): typeof ABSENT {
  const [, kind, reference = ''] = /\/(manifests|blobs)\/([^/?]+)$/.exec(url) ?? [];
  if (kind === undefined) return url.includes('/tags/list') ? TAGS : ABSENT;
  const {bytes, digest} = kind === 'blobs' ? blob : image;
  if (reference.includes(':') && reference !== digest) return ABSENT;
  const headers = kind === 'blobs' ? {} : {'Content-Type': image.mediaType, 'Docker-Content-Digest': digest};
  return {status: 200, headers, body: bytes};
}

const shown = (text: string): string => JSON.stringify(text.length > 600 ? `${text.slice(0, 600)}…` : text);

/** @throws an Error that names what is wrong with an answer. */
function judge(answer: RawAnswer, hasBody: boolean): void {
  const {status} = answer;
  if (!(status >= 200 && status < 600)) throw new Error(`the status is ${status}`);
  if (status >= 500 && status !== 503 && status !== 508) throw new Error(`the status is ${status}`);
  if (status === 405 && answer.headers['allow'] === undefined) throw new Error('405 without Allow');
  if (answer.body.includes(PAGE_MARK)) throw new Error('a page of the upstream is served as content');
  if (/html/i.test(answer.headers['content-type'] ?? '')) throw new Error('the content type is HTML');
  if (status < 400 || !hasBody) return;
  const {code, message} = errorOf(answer);
  if (status < 500 && !SPEC_CODES.includes(code)) throw new Error(`the code is ${code}`);
  // The upstream also fails when it answers 404 for content that it has just named, or has its image under a fallback tag.
  if (status === 503 && !/answered 500|does not have it|with an HTML page|not a readable index/.test(message))
    throw new Error(`503, but ${message}`);
}

/** After an upgrade that it ignored, node closes the connection of a malformed request without an answer. */
const UPGRADE = /^upgrade:/im;

/** How many answers had which status; `none`: no answer to bytes that were not a request. */
export type Statuses = Map<number | 'none', number>;

export interface RequestRun {
  port: number;
  /** Decides about everything that is sent. */
  seed: number;
  /** That send at the same time. */
  connections: number;
  /** To send on each connection. */
  requests: number;
  /** Added to. */
  statuses: Statuses;
  /** Called after each request. */
  sent?: () => void;
}

/**
 * Sends mutated requests and judges the answers.
 * @throws Error that names the request whose answer is wrong
 */
export async function sendRequests({port, seed, connections, requests, ...run}: RequestRun): Promise<void> {
  const fresh = await withUploads(port);
  await Promise.all(
    Array.from({length: connections}, (_, index) =>
      sendOnOneConnection({port, seeds: fresh, random: createRandom(seed + index), requests, ...run}),
    ),
  );
}

interface ConnectionRun extends Pick<RequestRun, 'port' | 'requests' | 'statuses' | 'sent'> {
  seeds: Seeds;
  random: Random;
}

/** Sends one request after the other, on the same connection for as long as that stays open. */
async function sendOnOneConnection(run: ConnectionRun): Promise<void> {
  const {port, seeds, random, requests, statuses, sent = () => {}} = run;
  let kept: RawConnection | undefined;
  for (let count = 0; count < requests; count++) {
    sent();
    if (random.chance(RESETS)) await reset(port, brokenOff(seeds, random), random);
    const framed = !random.chance(UNFRAMED);
    const text = framed ? mutatedRequest(seeds, random) : mutatedBytes(seeds, random);
    try {
      kept ??= await connectRaw(port);
      const answer = framed ? await askFramed(kept, text) : await askUnframed(port, kept, text);
      const status = answer?.status ?? 'none';
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (framed && (answer?.headers['connection'] !== 'keep-alive' || UPGRADE.test(text))) {
        kept.socket.destroy();
        kept = undefined;
      }
    } catch (error) {
      kept?.socket.destroy();
      throw new Error(`${shown(text)}: ${error instanceof Error ? error.message : error}`);
    }
  }
  kept?.socket.destroy();
}

/** Resets a connection in the middle of the request, in the middle of the answer, or after both. */
async function reset(port: number, text: string, random: Random): Promise<void> {
  const {socket, send} = await connectRaw(port);
  const closed = new Promise((resolve) => socket.once('close', resolve));
  send(Buffer.from(text, 'latin1'));
  for (let turns = random.below(4); turns > 0; turns--) await nextTurn();
  socket.resetAndDestroy();
  await closed;
}

async function askFramed(connection: RawConnection, text: string): Promise<RawAnswer> {
  connection.send(Buffer.from(text, 'latin1'));
  const method = /^[A-Z-]*/.exec(text)?.[0];
  const answer = await connection.answer(method);
  if (!answer) throw new Error('no answer');
  judge(answer, answer.body.length > 0 || method !== 'HEAD');
  return answer;
}

/** Bytes that are not a request may be cut off without an answer, but any answer must be well-formed. */
async function askUnframed(port: number, other: RawConnection, text: string): Promise<RawAnswer | undefined> {
  const connection = await connectRaw(port);
  connection.send(Buffer.from(text, 'latin1'));
  // Once another connection has its answer, the server has most likely read the bytes, and their end comes separately.
  await askFramed(other, 'GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n');
  connection.socket.end();
  // The bytes may be several requests: the first is answered first.
  const answer = await connection.answer(/^\s*([A-Z]+)/.exec(text)?.[1]);
  connection.socket.destroy();
  if (answer) judge(answer, answer.body.length > 0);
  return answer;
}
