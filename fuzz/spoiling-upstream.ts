import {once} from 'node:events';
import {type AddressInfo, createServer as createTcpServer, type Socket} from 'node:net';
import {contentAt, fuzzImage} from './contents.ts';
import {createRandom} from './mutations.ts';
import type {LocalServer} from './requests.ts';
import {type AnswerParts, rightAnswer, spoiledAnswer} from './spoiled-answers.ts';

/** An upstream that spoils most of its answers. */
export interface SpoilingUpstream extends LocalServer {
  /** The number of answers that were spoiled so far. */
  readonly spoiled: number;
  /** The last ones, for the report of a failure. */
  lastSpoiled(): string[];
}

/** The share of the answers that are spoiled. */
const SPOILED = 0.7;
const MAX_REMEMBERED = 10;
/** Repositories whose number is divisible by this one want a token. */
const WITH_TOKEN = 5;

/** A registry that knows every image of `fuzzImage`. @param seed decides which answers are spoiled, and how */
export async function startSpoilingUpstream(seed: number): Promise<SpoilingUpstream> {
  const random = createRandom(seed);
  const last: string[] = [];
  const sockets = new Set<Socket>();
  let spoiled = 0;
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    readRequests(socket, (request) => {
      const right = answerTo(request, socket.localPort);
      if (!random.chance(SPOILED)) return void socket.end(rightAnswer(right, request.method));
      spoiled += 1;
      const {bytes, isReset} = spoiledAnswer(right, request.method, random);
      last.push(
        `${request.method} ${request.path}: ${JSON.stringify(bytes.toString('latin1').slice(0, 300))}`,
      );
      if (last.length > MAX_REMEMBERED) last.shift();
      if (isReset) socket.write(bytes, () => socket.resetAndDestroy());
      else socket.end(bytes);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get spoiled() {
      return spoiled;
    },
    lastSpoiled: () => [...last],
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

interface ReceivedRequest {
  method: string;
  path: string;
  isAuthorized: boolean;
}

/** Calls back with the first request of a connection, once its head has come; its body is read and dropped. */
function readRequests(socket: Socket, received: (request: ReceivedRequest) => void): void {
  let head = '';
  let isAnswered = false;
  socket.on('data', (chunk: Buffer) => {
    if (isAnswered) return;
    head += chunk.toString('latin1');
    if (!head.includes('\r\n\r\n')) return;
    isAnswered = true;
    const [method = '', path = ''] = head.split(' ');
    received({method, path, isAuthorized: /^authorization:/im.test(head)});
  });
}

function answerTo({method, path, isAuthorized}: ReceivedRequest, port: number | undefined): AnswerParts {
  if (path.startsWith('/token')) return jsonAnswer(200, {token: 'a.b.c', expires_in: 60});
  const [, number, rest = ''] = /^\/v2\/r(\d+)\/app\/([^?]*)/.exec(path) ?? [];
  if (number === undefined) return jsonAnswer(200, {});
  if (Number(number) % WITH_TOKEN === 0 && !isAuthorized) return challenge(port);
  if (rest.startsWith('blobs/uploads')) return answerToUpload(method, path);
  if (rest === 'tags/list') return jsonAnswer(200, {name: `r${number}/app`, tags: ['1', '2']});
  const content = contentAt(fuzzImage(Number(number)), rest);
  if (method === 'PUT') return {status: 201, headers: [['Location', path]], body: Buffer.alloc(0)};
  if (method === 'DELETE') return {status: 202, headers: [], body: Buffer.alloc(0)};
  if (!content) return jsonAnswer(404, {errors: [{code: 'MANIFEST_UNKNOWN', message: 'unknown'}]});
  const {bytes, digest, mediaType} = content;
  const headers = [
    ['Content-Type', mediaType],
    ['Docker-Content-Digest', digest],
  ] as const;
  return {status: 200, headers, body: bytes};
}

function answerToUpload(method: string, path: string): AnswerParts {
  const isDone = method === 'PUT' || path.includes('digest=');
  const headers = [
    ['Location', path.replace(/uploads\/?.*$/, 'uploads/1')],
    ['Range', '0-0'],
  ] as const;
  return {status: isDone ? 201 : 202, headers, body: Buffer.alloc(0)};
}

const challenge = (port: number | undefined): AnswerParts => ({
  status: 401,
  headers: [
    [
      'WWW-Authenticate',
      `Bearer realm="http://127.0.0.1:${port}/token",service="fuzz",scope="repository:a:pull"`,
    ],
  ],
  body: Buffer.from('{}'),
});

const jsonAnswer = (status: number, value: object): AnswerParts => ({
  status,
  headers: [['Content-Type', 'application/json']],
  body: Buffer.from(JSON.stringify(value)),
});
