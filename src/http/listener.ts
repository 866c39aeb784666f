import {createServer, type Server} from 'node:http';
import type {AddressInfo, Socket} from 'node:net';
import type Koa from 'koa';
import type {Clock} from '../clock.ts';
import {OciError} from '../oci/errors.ts';
import {errorAnswer} from './errors.ts';
import type {RequestState} from './state.ts';

export interface Listener {
  /** Gives the port that it listens on; `port` 0 takes a free one. @throws what the system says, e.g. EADDRINUSE */
  listen(host: string, port: number): Promise<number>;
  /** Accepts nothing new, lets requests under way end within `grace` milliseconds, then cuts what is left. */
  close(grace: number): Promise<void>;
}

/** Headers, the request line included; enough that an overlong target is seen whole and answered with 414. */
const MOST_HEADER_BYTES = 32 * 1024;

/** The HTTP server below the application: limits, malformed requests, and the end. */
export function createListener(app: Koa<RequestState>, clock: Clock): Listener {
  const handle = app.callback();
  let closing = false;
  const server = createServer({maxHeaderSize: MOST_HEADER_BYTES}, (request, response) => {
    if (closing) response.setHeader('Connection', 'close');
    handle(request, response);
  });
  // What a mirror takes in is headers alone; how long a client may read is its own affair.
  server.requestTimeout = 0;
  server.on('clientError', refuse);
  return {
    listen: (host, port) => listening(server, host, port),
    async close(grace) {
      closing = true;
      const ended = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeIdleConnections();
      const waiting = new AbortController();
      await Promise.race([ended, clock.sleep(grace, waiting.signal).catch(() => {})]);
      waiting.abort();
      server.closeAllConnections();
      await ended;
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

/** What the parser refuses never reaches the application; it is answered in the same format. */
function refuse(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const overflow = error.code === 'HPE_HEADER_OVERFLOW';
  const fault = new OciError('UNSUPPORTED', {
    status: overflow ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400,
    message: overflow
      ? `the request's headers are longer than ${MOST_HEADER_BYTES} bytes`
      : `this is no HTTP request that can be read: ${error.message}`,
  });
  const {status, headers, body} = errorAnswer(fault, undefined);
  const lines = Object.entries({
    ...headers,
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
  });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  socket.end(`HTTP/1.1 ${status} ${REASONS[status] ?? 'Bad Request'}\r\n${head}\r\n${body}`);
}

const REASONS: Record<number, string> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};
