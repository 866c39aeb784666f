import {algorithmOf, digestOf, isDigest} from '../src/oci/digest.ts';
import {connectRaw, type RawAnswer} from '../test/support/raw-http.ts';
import {type FuzzImage, fuzzImage} from './contents.ts';
import {createRandom, type Random} from './mutations.ts';
import type {Statuses} from './requests.ts';
import type {SpoilingUpstream} from './spoiling-upstream.ts';

export interface AnswerRun {
  /** Of the server that is fuzzed. */
  port: number;
  upstream: SpoilingUpstream;
  /** Decides what is asked for. */
  seed: number;
  /** The number of spoiled answers that the upstream gives altogether. */
  answers: number;
  /** Added to. */
  statuses: Statuses;
}

/** Clients that ask at the same time. Many, since most of them wait for an upstream that is asked again. */
const CLIENTS = 48;
/** Images that are asked for at a time: most of them have not been stored yet. */
const WINDOW = 300;
/** Requests for each image, on average, before another one takes its place. */
const REQUESTS_PER_IMAGE = 12;

/** What the server may answer while its upstream spoils its answers; 508 where the upstream says that. */
const SERVER_ERRORS: ReadonlySet<number> = new Set([502, 503, 504, 508]);

/**
 * Asks for everything that an upstream is asked for, until it has spoiled as many answers.
 * @throws Error that names the request whose answer is wrong, and the upstream's last answers
 */
export async function askBehindSpoilingUpstream({upstream, seed, answers, ...run}: AnswerRun): Promise<void> {
  let asked = 0;
  const client = async (random: Random) => {
    while (upstream.spoiled < answers) {
      asked += 1;
      const image = fuzzImage(Math.floor(asked / REQUESTS_PER_IMAGE) + random.below(WINDOW));
      await askOnce(requestFor(image, random), upstream, run);
    }
  };
  await Promise.all(Array.from({length: CLIENTS}, (_, index) => client(createRandom(seed + index))));
}

interface ClientRequest {
  method: string;
  path: string;
  headers?: string;
  body?: Buffer;
}

const REGISTRIES = ['', '', '', 'ghcr.io/', 'through.local/'] as const;

function requestFor(image: FuzzImage, random: Random): ClientRequest {
  const {manifest, index, referrer, blob} = image;
  const base = `/v2/${random.pick(REGISTRIES)}${image.name}`;
  const through = `/v2/through.local/${image.name}`;
  const method = random.chance(0.3) ? 'HEAD' : 'GET';
  switch (random.below(12)) {
    case 0:
      return {method, path: `${base}/manifests/1`};
    case 1:
      return {method, path: `${base}/manifests/${random.pick([manifest, index, referrer]).digest}`};
    case 2:
      return {method: 'GET', path: `${base}/referrers/${manifest.digest}`};
    case 3:
      return {method: 'GET', path: `${base}/tags/list`};
    case 4:
      return {method, path: `${base}/blobs/${blob.digest}`, headers: 'Range: bytes=3-20\r\n'};
    case 5:
      return {method: 'POST', path: `${through}/blobs/uploads/?digest=${blob.digest}`, body: blob.bytes};
    case 6:
      return {
        method: 'POST',
        path: `${through}/blobs/uploads/?mount=${blob.digest}&from=${fuzzImage(1).name}`,
      };
    case 7: {
      const headers = `Content-Type: ${manifest.mediaType}\r\n`;
      return {method: 'PUT', path: `${through}/manifests/2`, headers, body: manifest.bytes};
    }
    case 8:
      return {method: 'DELETE', path: `${through}/manifests/${manifest.digest}`};
    default:
      return {method, path: `${base}/blobs/${blob.digest}`};
  }
}

async function askOnce(
  request: ClientRequest,
  upstream: SpoilingUpstream,
  {port, statuses}: Pick<AnswerRun, 'port' | 'statuses'>,
): Promise<void> {
  const {method, path, headers = '', body = Buffer.alloc(0)} = request;
  const connection = await connectRaw(port);
  try {
    const length = method === 'GET' || method === 'HEAD' ? '' : `Content-Length: ${body.length}\r\n`;
    const head = `${method} ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${headers}${length}\r\n`;
    connection.send(Buffer.concat([Buffer.from(head), body]));
    const answer = await connection.answer(method);
    const status = answer?.status ?? 'none';
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    if (answer) judgeAnswer(request, answer);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const last = upstream.lastSpoiled().join('\n  ');
    throw new Error(`${method} ${path}: ${reason}\nThe upstream's last spoiled answers:\n  ${last}`);
  } finally {
    connection.socket.destroy();
  }
}

/** @throws Error that says what is wrong with an answer */
function judgeAnswer({method, path}: ClientRequest, {status, body, isWhole}: RawAnswer): void {
  if (!(status >= 200 && status < 600)) throw new Error(`the status is ${status}`);
  if (status >= 500 && !SERVER_ERRORS.has(status)) throw new Error(`the status is ${status}: ${body}`);
  const digest = path.slice(path.lastIndexOf('/') + 1);
  if (method === 'DELETE' || !isDigest(digest) || path.includes('/referrers/')) return;
  if (status === 404) throw new Error('a failure of the upstream is reported as an absence');
  // A body that turns out to be wrong while it passes ends before its last byte.
  if (method === 'HEAD' || status !== 200 || !isWhole) return;
  if (digestOf(body, algorithmOf(digest)) !== digest) throw new Error('the bytes are wrong');
}
