import {type ClientRequest, request as httpRequest, type IncomingMessage} from 'node:http';
import {request as httpsRequest} from 'node:https';
import type {Socket} from 'node:net';
import {type Clock, type IdleWatch, watchIdle} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import {createBody} from './body.ts';
import {startBudget, waitFor} from './budget.ts';
import {ConnectionFault, connectionFault} from './fault.ts';
import type {Method, Reply} from './reply.ts';
import {type RequestOptions, type SendDeps, USER_AGENT} from './request.ts';

/** A body that can be read only once. */
export interface StreamedBody {
  /** Bytes; undefined when the length is not known in advance. */
  length: number | undefined;
  /** The next chunk is requested once the previous one has been sent; ended with `return()` when no more are wanted. */
  bytes: AsyncIterable<Uint8Array>;
}

export interface StreamRequest extends Pick<RequestOptions, 'network'> {
  method: Method;
  url: URL;
  headers: Record<string, string>;
  stream: StreamedBody;
}

/**
 * One HTTP exchange whose body is a stream. No time limit applies while the next bytes are awaited; the limits apply to
 * connecting, to the upstream's reading of bytes, and, after the last byte, to its response.
 * @returns the reply. One with status 300 or above may come before all bytes are sent, and ends the sending.
 * @throws UpstreamFailure, or what reading the bytes throws.
 */
export type SendStream = (request: StreamRequest) => Promise<Reply>;

export interface SendStreamDeps extends SendDeps {
  /** Milliseconds: for connecting, between bytes, and from the last byte sent to the response's headers. */
  timeouts: {connect: number; idle: number; answer: number};
}

/** Bytes per write to the connection. Progress, and so idling, is measured in units of this size. */
const WRITE_SIZE = 256 * 1024;
/** Ends the sending because the upstream has refused. */
const REFUSED = new Error('the upstream has refused the request');

/** @throws the error of `late` when the time is over first. */
async function within<T>(work: Promise<T>, ms: number, clock: Clock, late: () => Error): Promise<T> {
  const budget = startBudget(clock, ms);
  try {
    return await waitFor(work, budget.signal);
  } catch (error) {
    throw budget.signal.aborted ? late() : error;
  } finally {
    budget.end();
  }
}

/** Codes of a write to a connection that the other side has closed. */
const RESET_CODES = new Set(['EPIPE', 'ECONNRESET']);

/**
 * Lets the response be read after a failed write. When an upstream has answered and closed, the next write fails, and
 * node then drops what it has received but not read: the response. Here such a write never completes, and reading finds
 * the response or the end of the connection.
 */
function ignoreResetOnWrite(socket: Socket): void {
  // A kept-alive connection that an earlier upload has used.
  if (Object.hasOwn(socket, '_write')) return;
  type Done = (error?: NodeJS.ErrnoException | null) => void;
  const unlessReset =
    (done: Done): Done =>
    (error) => {
      if (!RESET_CODES.has(error?.code ?? '')) done(error);
    };
  const {_write, _writev} = socket;
  socket._write = (chunk, encoding, done) => _write.call(socket, chunk, encoding, unlessReset(done));
  if (_writev) socket._writev = (chunks, done) => _writev.call(socket, chunks, unlessReset(done));
}

function connected(request: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    request.once('socket', (socket) => {
      ignoreResetOnWrite(socket);
      const isTls = 'secureConnecting' in socket;
      const isPending = isTls ? socket.secureConnecting === true : socket.connecting;
      if (isPending) socket.once(isTls ? 'secureConnect' : 'connect', resolve);
      else resolve();
    });
  });
}

/** Resolves when the bytes have left this process and their memory may be reused. */
function write(request: ClientRequest, bytes: Uint8Array, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    request.write(bytes, (error) => (error ? reject(connectionFault(error, host)) : resolve()));
  });
}

/**
 * Sends the bytes as they come.
 * @param halt its reason is thrown at once, also while the next bytes are awaited.
 */
async function sendBytes(
  request: ClientRequest,
  {length, bytes}: StreamedBody,
  host: string,
  halt: AbortSignal,
  watch: IdleWatch,
): Promise<void> {
  const source = bytes[Symbol.asyncIterator]();
  let sent = 0;
  const checkLength = (fits: boolean): void => {
    if (!fits)
      throw new Error(`the stream of an upload does not have the ${length} bytes that were announced`);
  };
  try {
    for (;;) {
      const {done, value} = await waitFor(source.next(), halt);
      if (done) break;
      sent += value.length;
      checkLength(length === undefined || sent <= length);
      watch.restart();
      for (let at = 0; at < value.length; at += WRITE_SIZE) {
        await waitFor(write(request, value.subarray(at, at + WRITE_SIZE), host), halt);
        watch.restart();
      }
      watch.pause();
    }
    checkLength(length === undefined || sent === length);
  } catch (error) {
    // Not awaited: the source cannot end before its next chunk has arrived.
    source.return?.().catch(() => undefined);
    throw error;
  }
}

/** The response to a request whose body is still being sent. */
interface PendingResponse {
  /** The response's head; rejects with the connection's fault. */
  readonly head: Promise<IncomingMessage>;
  /** Aborted by a fault, and by a response that refuses further bytes. */
  readonly halt: AbortController;
  isRefusal(): boolean;
}

function responseOf(request: ClientRequest, host: string): PendingResponse {
  const {promise: head, resolve, reject} = Promise.withResolvers<IncomingMessage>();
  head.catch(() => undefined);
  const halt = new AbortController();
  let isRefusal = false;
  request.once('response', (response) => {
    // A 2xx may also come early, as from servers that keep the connection open; the rest must still be sent.
    isRefusal = (response.statusCode ?? 0) >= 300;
    resolve(response);
    if (isRefusal) halt.abort(REFUSED);
  });
  // Stays while the body is read, so that its errors do not go unhandled; the body's reader sees them.
  request.on('error', (error) => {
    const fault = connectionFault(error, host);
    reject(fault);
    halt.abort(fault);
  });
  return {head, halt, isRefusal: () => isRefusal};
}

/** Sends the whole request and waits for the response's head. */
async function sendAll(
  request: ClientRequest,
  {head, halt}: PendingResponse,
  {url: {host}, stream}: StreamRequest,
  {clock, timeouts: {connect, idle, answer}}: Pick<SendStreamDeps, 'clock' | 'timeouts'>,
): Promise<void> {
  const timeout = (reason: string) => new UpstreamFailure('timeout', host, reason);
  const watch = watchIdle(clock, idle, () =>
    halt.abort(timeout(`accepted no byte of the upload for ${idle} ms`)),
  );
  try {
    request.flushHeaders();
    const connecting = waitFor(connected(request), halt.signal);
    const late = `could not be connected to in time (${connect}ms)`;
    await within(connecting, connect, clock, () => new ConnectionFault('unreachable', host, late, true));
    await sendBytes(request, stream, host, halt.signal, watch);
  } finally {
    watch.stop();
  }
  request.end();
  const late = `sent no response headers for ${answer} ms after the last byte of the upload`;
  await within(head, answer, clock, () => timeout(late));
}

export function createSendStream(deps: SendStreamDeps): SendStream {
  const {clock, events, agents, labelOf, timeouts} = deps;

  const open = ({method, url, headers, network = 'any'}: StreamRequest): ClientRequest => {
    const fixed = {'user-agent': USER_AGENT, 'accept-encoding': 'identity'};
    const options = {method, headers: {...fixed, ...headers}};
    return url.protocol === 'https:'
      ? httpsRequest(url, {...options, agent: agents[network].https})
      : httpRequest(url, {...options, agent: agents[network].http});
  };

  return async (streamRequest) => {
    const startedAt = clock.monotonic();
    const {method, url} = streamRequest;
    const {host} = url;
    const request = open(streamRequest);
    const pending = responseOf(request, host);
    try {
      await sendAll(request, pending, streamRequest, deps);
    } catch (error) {
      if (!pending.isRefusal()) {
        request.destroy();
        throw error;
      }
    }
    const response = await pending.head;
    const status = response.statusCode ?? 0;
    const ms = clock.monotonic() - startedAt;
    events.emit('upstream.request', {host, label: labelOf(host), method, path: url.pathname, status, ms});
    const body = createBody(response, host, timeouts.idle, clock);
    // After a partial request the connection cannot be reused.
    if (!request.writableEnded) void body.ended.then(() => request.destroy());
    return {status, headers: response.headers, url, body};
  };
}
