import {createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES} from 'node:http';
import type {AddressInfo} from 'node:net';
import type {Duplex} from 'node:stream';
import type Koa from 'koa';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import {createConnections} from './connections.ts';
import {errorAnswer} from './errors.ts';
import type {RequestState} from './state.ts';

export interface Listener {
  /** Gives the port that it listens on; `port` 0 takes a free one. @throws what the system says, e.g. EADDRINUSE */
  listen(host: string, port: number): Promise<number>;
  /** Accepts nothing new, lets requests under way end within `grace` milliseconds, then cuts what is left. */
  close(grace: number): Promise<void>;
}

/** Headers, the request line included; enough that an overlong target is seen whole and answered with 414. */
const MAX_HEADER_BYTES = 32 * 1024;

/** Milliseconds that a client may take to send the rest of a body whose answer it has. */
const LONGEST_REST = 30_000;

/** How long a connection that was answered with an error may take to close. */
const CLOSE_TIMEOUT_MS = 5000;

/** Requests that a client may send on one connection without waiting for their answers; with more, it is cut off. */
const MAX_PIPELINED = 100;

/** Failures to accept connections come by the thousand: at most one in so many milliseconds is reported. */
const REPORT_INTERVAL_MS = 1000;

export interface ListenerParts {
  app: Koa<RequestState>;
  /** Milliseconds in which a client has to take some of the bytes that wait for it. */
  sendTimeout: number;
  clock: Clock;
  events: Events;
}

/** The HTTP server below the application: limits, malformed requests, and the end. */
export function createListener({app, sendTimeout, clock, events}: ListenerParts): Listener {
  const handle = app.callback();
  const connections = createConnections({sendTimeout, clock, events});
  let closing = false;
  const server = createServer({maxHeaderSize: MAX_HEADER_BYTES, requireHostHeader: false});
  const answers = new WeakMap<Duplex, Set<ServerResponse>>();

  function serve(request: IncomingMessage, response: ServerResponse): void {
    const {socket} = request;
    const underWay = answers.get(socket) ?? new Set();
    if (underWay.size >= MAX_PIPELINED) return void socket.destroy();
    answers.set(socket, underWay.add(response));
    response.once('finish', () => boundRest(request));
    response.once('close', () => {
      underWay.delete(response);
      // The connection of an answer that ended after `close` was called is idle now and would hold the server open.
      if (closing) server.closeIdleConnections();
    });
    inTurn(request, response);
  }

  /**
   * Handles a pipelined request once those before it are answered. Until then node has not given its response the socket,
   * and the older ones of the supported versions never emit its `close`: what a client asked for and left behind would
   * be waited for forever.
   */
  function inTurn(request: IncomingMessage, response: ServerResponse): void {
    const begin = (): void => {
      if (closing) response.setHeader('Connection', 'close');
      handle(request, response);
    };
    if (response.socket) begin();
    else response.once('socket', begin);
  }

  /** What is left of a body after its answer is passed over, but not for ever. */
  function boundRest(request: IncomingMessage): void {
    if (request.complete) return;
    clock.after(LONGEST_REST, () => {
      if (!request.complete) request.socket.destroy();
    });
  }

  // The largest blob may take hours; whoever reads a body ends it when nothing comes any more.
  server.requestTimeout = 0;
  server.on('request', serve);
  // Who refuses a request by its headers spares the client the body: the reader of the body asks for it.
  server.on('checkContinue', serve);
  // RFC 9110, section 10.1.1: an expectation that is not understood may be ignored.
  server.on('checkExpectation', serve);
  server.on('connection', connections.add);
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    // Written now, the refusal would be taken for the answer to the request before it.
    if (answers.get(socket)?.size) return void socket.destroy();
    endWith(socket, NO_TUNNEL, clock);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    // RFC 9112, section 9.6: what follows a request that said close is not read. The answer to that one ends the connection.
    if (error.code === 'HPE_CLOSED_CONNECTION') return;
    // The text of an error would be taken for more of an answer that has begun, or for the answer to a request before.
    const isMistakable = [...(answers.get(socket) ?? [])].some(
      ({headersSent, req}) => headersSent || req.complete,
    );
    if (error.code === 'ECONNRESET' || !socket.writable || isMistakable) return void socket.destroy();
    endWith(socket, unreadable(error), clock);
  });
  reportFailures(server, clock, events);
  return {
    listen: (host, port) => listening(server, host, port),
    async close(grace) {
      closing = true;
      const ended = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeIdleConnections();
      const cancel = clock.after(grace, connections.destroyAll);
      await ended;
      cancel();
    },
  };
}

function listening(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

/** Failures to accept a connection: that no file descriptor is left (EMFILE) may be over in a moment. */
function reportFailures(server: Server, clock: Clock, events: Events): void {
  let reported = false;
  server.on('error', (error) => {
    // Before it listens, whoever called `listen` is told.
    if (reported || !server.listening) return;
    reported = true;
    clock.after(REPORT_INTERVAL_MS, () => {
      reported = false;
    });
    events.emit('listener.failed', {error});
  });
}

const NO_TUNNEL = new OciError('UNSUPPORTED', {
  message: 'CONNECT is not supported here; supported are GET, HEAD',
  headers: {Allow: 'GET, HEAD'},
});

/** What the parser refuses never reaches the application. */
function unreadable({code, message}: NodeJS.ErrnoException): OciError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new OciError('UNSUPPORTED', {
      status: 431,
      message: `the request's headers are longer than ${MAX_HEADER_BYTES} bytes`,
    });
  }
  return new OciError('UNSUPPORTED', {
    status: code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400,
    message: `this is no HTTP request that can be read: ${message}`,
  });
}

/** Answers below the application, in the same format, and ends the connection, whatever the client does. */
function endWith(socket: Duplex, fault: OciError, clock: Clock): void {
  const {status, headers, body} = errorAnswer(fault, undefined);
  const lines = Object.entries({
    ...headers,
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
  });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head}\r\n${body}`);
  // The end of the other side is seen only by a reader, and after CONNECT there is none.
  socket.resume();
  socket.once(
    'close',
    clock.after(CLOSE_TIMEOUT_MS, () => socket.destroy()),
  );
}
