import {once} from 'node:events';
import {createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse} from 'node:http';
import {createServer as createTlsServer} from 'node:https';
import type {Socket} from 'node:net';
import {setTimeout as delay} from 'node:timers/promises';
import {ownPort, unless} from '../../rig/port.ts';
import {algorithmOf, digestOf, isDigest} from '../../src/oci/digest.ts';

/** A step of a body: bytes, a promise to wait for, the end of the connection, or a silence until the server stops. */
export type BodyPart = string | Uint8Array | {wait: Promise<unknown>} | typeof BREAK | typeof HANG;
export const BREAK = Symbol('break the connection');
export const HANG = Symbol('say nothing more');

export interface ScriptedAnswer {
  /** Default 200. */
  status?: number;
  /**
   * A string or bytes bring their own `Content-Length`; parts go out chunked unless it stands here. A 201 to the PUT of
   * a manifest brings the digest of its bytes, unless another `Docker-Content-Digest` stands here.
   */
  headers?: Record<string, string | string[]>;
  body?: string | Uint8Array | readonly BodyPart[];
  /** Awaited before the status line: a slow registry. `HANG` never answers, `BREAK` resets the connection. */
  before?: Promise<unknown> | typeof HANG | typeof BREAK;
}

export interface ReceivedRequest {
  method: string;
  /** Path and query. */
  url: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

export interface Expectation {
  /** `METHOD /path?query`, compared whole; or a pattern over the same text. */
  request: string | RegExp;
  /** What the request's headers must be; `undefined` means that the header must not be there. */
  sends?: Record<string, string | RegExp | undefined>;
  answer?: ScriptedAnswer | ((request: ReceivedRequest) => ScriptedAnswer);
  /** So many requests in a row, default 1. */
  times?: number;
  /** Answers any number of requests, at least one, at any point of the list. */
  always?: true;
  /** Need not be asked for. */
  optional?: true;
}

export interface ScriptedUpstreamOptions {
  /** Expectations need not come in the order of the list. */
  anyOrder?: boolean;
  /** The address to listen on, default 127.0.0.1. */
  host?: string;
  /** Serves https with these PEM texts. */
  tls?: {key: string; cert: string};
}

export interface ScriptedUpstream {
  /** `http://127.0.0.1:PORT`, without a slash at the end. */
  readonly url: string;
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly port: number;
  /** Everything that arrived, unexpected requests included. */
  readonly requests: readonly ReceivedRequest[];
  /** Connections accepted so far. */
  connections(): number;
  /** Resolves when no connection is open. */
  disconnected(): Promise<void>;
  /** Resolves when so many requests have arrived in all. */
  received(count: number): Promise<void>;
  /** Adds to the end of the list. */
  expect(...more: Expectation[]): void;
  /** Plays an outage: breaks every connection and refuses new ones. */
  stop(): Promise<void>;
  /** Ends the outage, on the same port. */
  start(): Promise<void>;
  /** @throws an Error that lists the unexpected requests and the expectations nobody asked for. */
  verify(): void;
  /** Stops, then verifies. Idempotent. Called by `t.teardown`. */
  close(): Promise<void>;
}

const matches = (expectation: Expectation, request: ReceivedRequest): boolean => {
  const line = `${request.method} ${request.url}`;
  const wanted = expectation.request;
  if (typeof wanted === 'string' ? wanted !== line : !wanted.test(line)) return false;
  return Object.entries(expectation.sends ?? {}).every(([name, value]) => {
    const sent = request.headers[name.toLowerCase()];
    if (value === undefined || sent === undefined) return sent === value;
    return value instanceof RegExp ? value.test(String(sent)) : value === sent;
  });
};

/** The list of expectations with how often each was met. */
function createScript(initial: readonly Expectation[], anyOrder: boolean) {
  const entries = initial.map((expectation) => ({expectation, met: 0}));
  const allowed = (entry: (typeof entries)[number]) =>
    entry.expectation.always ? Infinity : (entry.expectation.times ?? 1);
  const missing = (entry: (typeof entries)[number]) =>
    entry.expectation.optional ? 0 : (entry.expectation.always ? 1 : allowed(entry)) - entry.met;

  return {
    add: (more: Expectation[]) => void entries.push(...more.map((expectation) => ({expectation, met: 0}))),
    take(request: ReceivedRequest): Expectation | undefined {
      let blocked = false;
      for (const entry of entries) {
        const open = entry.met < allowed(entry) && (!blocked || entry.expectation.always);
        if (open && matches(entry.expectation, request)) {
          entry.met++;
          return entry.expectation;
        }
        blocked ||= !anyOrder && !entry.expectation.always && missing(entry) > 0;
      }
      return undefined;
    },
    unmet: () =>
      entries.filter((entry) => missing(entry) > 0).map(({expectation}) => String(expectation.request)),
  };
}

async function receive(incoming: IncomingMessage): Promise<ReceivedRequest> {
  const {method = 'GET', url = '/', headers} = incoming;
  return {method, url, headers, body: Buffer.concat(await incoming.toArray())};
}

/** Resolves when the chunk may be followed by the next, or when the connection is gone. */
const write = (response: ServerResponse, chunk: string | Uint8Array): Promise<void> =>
  new Promise((resolve) => {
    if (response.destroyed) return resolve();
    response.once('close', resolve);
    response.write(chunk, () => {
      response.off('close', resolve);
      resolve();
    });
  });

/** As registries do, which name the digest of a manifest that they took. */
function nameDigest({method, url, body}: ReceivedRequest, response: ServerResponse): void {
  const [, reference = ''] = /\/manifests\/([^/?]+)/.exec(url) ?? [];
  if (method !== 'PUT' || reference === '') return;
  const algorithm = isDigest(reference) ? algorithmOf(reference) : 'sha256';
  response.setHeader('docker-content-digest', digestOf(body, algorithm));
}

async function play(
  request: ReceivedRequest,
  response: ServerResponse,
  answer: ScriptedAnswer,
): Promise<void> {
  const {status = 200, headers = {}, body = '', before} = answer;
  if (status === 201) nameDigest(request, response);
  if (before === HANG) return;
  if (before === BREAK) return void response.destroy();
  await before;
  if (typeof body === 'string' || body instanceof Uint8Array) {
    if (status >= 200 && status !== 204 && status !== 304) {
      response.setHeader('content-length', Buffer.byteLength(body));
    }
    response.writeHead(status, headers).end(body);
    return;
  }
  response.writeHead(status, headers).flushHeaders();
  for (const part of body) {
    if (part === HANG) return;
    if (part === BREAK) return void response.destroy();
    if (typeof part === 'object' && 'wait' in part) await part.wait;
    else await write(response, part);
  }
  response.end();
}

/**
 * A registry on a real socket that plays a list of expected requests. A request that the list does not hold next is
 * answered with 500 and fails the test, as does an expectation that nobody asked for.
 * @param t an ava execution context, or whatever else takes a function to run at the end.
 */
export async function createScriptedUpstream(
  t: {teardown(end: () => Promise<void>): void},
  expectations: readonly Expectation[] = [],
  options: ScriptedUpstreamOptions = {},
): Promise<ScriptedUpstream> {
  const {host: address = '127.0.0.1', tls, anyOrder = false} = options;
  const script = createScript(expectations, anyOrder);
  const requests: ReceivedRequest[] = [];
  const unexpected: string[] = [];
  let watchers: {count: number; resolve: () => void}[] = [];

  const handle = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const request = await receive(incoming);
    requests.push(request);
    for (const {count, resolve} of watchers) if (requests.length >= count) resolve();
    watchers = watchers.filter(({count}) => requests.length < count);
    const expectation = script.take(request);
    if (!expectation) {
      unexpected.push(`${request.method} ${request.url}`);
      response.writeHead(500).end('the script does not expect this request');
      return;
    }
    const {answer = {}} = expectation;
    await play(request, response, typeof answer === 'function' ? answer(request) : answer);
  };
  const listener = (incoming: IncomingMessage, response: ServerResponse): void => {
    handle(incoming, response).catch(() => response.destroy());
  };

  const server = tls ? createTlsServer(tls, listener) : createServer(listener);
  let connections = 0;
  let open = 0;
  let allClosed = Promise.withResolvers<void>();
  server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => {
    connections++;
    open++;
    socket.once('close', () => {
      open--;
      if (open > 0) return;
      allClosed.resolve();
      allClosed = Promise.withResolvers();
    });
  });
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, address, () => {
        server.off('error', reject);
        resolve();
      });
    });
  const port = await ownPort(address);
  await listen(port);
  const host = `${address}:${port}`;

  // The clock of src/ holds no process open, so a test that waits through an outage needs something that does.
  let outage: NodeJS.Timeout | undefined;
  const stop = async (): Promise<void> => {
    if (!server.listening) return;
    outage = setInterval(() => undefined, 60_000);
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };
  const start = async (): Promise<void> => {
    clearInterval(outage);
    // A program that another thread is just starting holds the old listener for a moment.
    while (!(await unless('EADDRINUSE', listen(port)))) await delay(10);
  };
  const verify = (): void => {
    const faults = [
      ...unexpected.map((line) => `unexpected: ${line}`),
      ...script.unmet().map((line) => `never asked for: ${line}`),
    ];
    if (faults.length > 0)
      throw new Error(`the upstream's script was not followed\n  ${faults.join('\n  ')}`);
  };
  const close = async (): Promise<void> => {
    await stop();
    clearInterval(outage);
    verify();
  };
  t.teardown(close);

  return {
    url: `${tls ? 'https' : 'http'}://${host}`,
    host,
    port,
    requests,
    connections: () => connections,
    disconnected: async () => {
      if (open > 0) await allClosed.promise;
    },
    received: (count) =>
      new Promise((resolve) => {
        if (requests.length >= count) return resolve();
        watchers.push({count, resolve});
      }),
    expect: (...more) => script.add(more),
    stop,
    start,
    verify,
    close,
  };
}
