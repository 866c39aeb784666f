import {type ClientRequest, request as httpRequest, type IncomingMessage} from 'node:http';
import {request as httpsRequest} from 'node:https';
import type {Socket} from 'node:net';
import type {Clock} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';
import {createBody, watchIdle} from './body.ts';
import {startBudget, waitFor} from './budget.ts';
import {ConnectionFault, connectionFault} from './fault.ts';
import {type Reply, type RequestOptions, type SendDeps, USER_AGENT} from './request.ts';

/** Bytes to send that can be read only once. */
export interface StreamedBody {
  /** Their number; undefined where it is not known before their end. */
  length: number | undefined;
  /** Asked for the next chunk when the one before has left; ended with `return()` when no more are wanted. */
  bytes: AsyncIterable<Uint8Array>;
}

export interface StreamRequest extends Pick<RequestOptions, 'network'> {
  method: RequestOptions['method'];
  url: URL;
  headers: Record<string, string>;
  stream: StreamedBody;
}

/**
 * One HTTP exchange whose body is a stream. However long the bytes are in coming, nothing runs out meanwhile; limits
 * hold for connecting, for the upstream's taking of bytes, and, from the last byte on, for its answer.
 * @returns the answer. One that refuses (3xx and above) may come before all bytes are sent, and ends the sending.
 * @throws UpstreamFailure, or what reading the bytes throws.
 */
export type SendStream = (request: StreamRequest) => Promise<Reply>;

export interface SendStreamDeps extends SendDeps {
  /** Milliseconds, each: for connecting, between bytes, from the last byte sent to the answer's headers. */
  timeouts: {connect: number; idle: number; answer: number};
}

/** Bytes that are handed to the connection at once: how fine progress is seen. */
const PIECE = 256 * 1024;
/** Ends the sending: there is an answer, and it wants no more bytes. */
const ANSWERED = new Error('the upstream has answered');

/** @throws what `late` gives when the time is over first. */
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

/** What a write is told on a connection that the other side has closed. */
const RESET = new Set(['EPIPE', 'ECONNRESET']);

/**
 * An upstream that has answered and closed makes the next write fail, on which node throws away what came before and
 * is not read yet: the answer. With this, such a write stays open, and the reading finds the answer or the end.
 */
function readToTheEnd(socket: Socket): void {
  // A kept connection, which an earlier upload used.
  if (Object.hasOwn(socket, '_write')) return;
  type Done = (error?: NodeJS.ErrnoException | null) => void;
  const unlessReset =
    (done: Done): Done =>
    (error) => {
      if (!RESET.has(error?.code ?? '')) done(error);
    };
  const {_write, _writev} = socket;
  socket._write = (chunk, encoding, done) => _write.call(socket, chunk, encoding, unlessReset(done));
  if (_writev) socket._writev = (chunks, done) => _writev.call(socket, chunks, unlessReset(done));
}

function connected(request: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    request.once('socket', (socket) => {
      readToTheEnd(socket);
      const encrypted = 'secureConnecting' in socket;
      const pending = encrypted ? socket.secureConnecting === true : socket.connecting;
      if (pending) socket.once(encrypted ? 'secureConnect' : 'connect', resolve);
      else resolve();
    });
  });
}

/** Resolves when the bytes have left this process: whoever gave them may use their memory again. */
function write(request: ClientRequest, piece: Uint8Array, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    request.write(piece, (error) => (error ? reject(connectionFault(error, host)) : resolve()));
  });
}

/**
 * Sends the bytes as they come.
 * @param halt its reason is thrown at once, whatever is waited for.
 */
async function pour(
  request: ClientRequest,
  {length, bytes}: StreamedBody,
  host: string,
  halt: AbortSignal,
  watch: {waiting(): void; calm(): void},
): Promise<void> {
  const source = bytes[Symbol.asyncIterator]();
  let sent = 0;
  const check = (fits: boolean): void => {
    if (!fits) throw new Error(`an upload of ${length} bytes was given another number of them`);
  };
  try {
    for (;;) {
      const {done, value} = await waitFor(source.next(), halt);
      if (done) break;
      sent += value.length;
      check(length === undefined || sent <= length);
      watch.waiting();
      for (let at = 0; at < value.length; at += PIECE) {
        await waitFor(write(request, value.subarray(at, at + PIECE), host), halt);
        watch.waiting();
      }
      watch.calm();
    }
    check(length === undefined || sent === length);
  } catch (error) {
    // Not waited for: while its next chunk is still to come, the source cannot end.
    source.return?.().catch(() => undefined);
    throw error;
  }
}

/** What becomes of a request while its body is being sent. */
interface Course {
  /** The answer's head, or the connection's fault. */
  readonly answered: Promise<IncomingMessage>;
  /** Aborted by a fault, and by an answer that wants no more bytes. */
  readonly halt: AbortController;
  /** That answer is here. */
  refused(): boolean;
}

function courseOf(request: ClientRequest, host: string): Course {
  const {promise: answered, resolve, reject} = Promise.withResolvers<IncomingMessage>();
  answered.catch(() => undefined);
  const halt = new AbortController();
  let refused = false;
  request.once('response', (response) => {
    // One that accepts before the end, as some do to keep the connection, still has to get the rest.
    refused = (response.statusCode ?? 0) >= 300;
    resolve(response);
    if (refused) halt.abort(ANSWERED);
  });
  // Stays for the body's time, whose faults are seen by whoever reads it.
  request.on('error', (error) => {
    const fault = connectionFault(error, host);
    reject(fault);
    halt.abort(fault);
  });
  return {answered, halt, refused: () => refused};
}

export function createSendStream({clock, events, agents, labelOf, timeouts}: SendStreamDeps): SendStream {
  const {connect, idle, answer} = timeouts;

  const open = ({method, url, headers, network = 'any'}: StreamRequest): ClientRequest => {
    const fixed = {'user-agent': USER_AGENT, 'accept-encoding': 'identity'};
    const options = {method, headers: {...fixed, ...headers}};
    return url.protocol === 'https:'
      ? httpsRequest(url, {...options, agent: agents[network].https})
      : httpRequest(url, {...options, agent: agents[network].http});
  };

  const send = async (request: ClientRequest, {answered, halt}: Course, {url, stream}: StreamRequest) => {
    const {host} = url;
    const timeout = (reason: string) => new UpstreamFailure('timeout', host, reason);
    const watch = watchIdle(clock, idle, () =>
      halt.abort(timeout(`took no byte of the upload for ${idle} ms`)),
    );
    try {
      request.flushHeaders();
      const standing = waitFor(connected(request), halt.signal);
      const late = `was not connected to in time (${connect}ms)`;
      await within(standing, connect, clock, () => new ConnectionFault('unreachable', host, late, true));
      await pour(request, stream, host, halt.signal, watch);
    } finally {
      watch.stop();
    }
    request.end();
    const silent = `sent no response headers for ${answer} ms after the last byte of the upload`;
    await within(answered, answer, clock, () => timeout(silent));
  };

  return async (question) => {
    const startedAt = clock.monotonic();
    const {method, url} = question;
    const {host} = url;
    const request = open(question);
    const course = courseOf(request, host);
    try {
      await send(request, course, question);
    } catch (error) {
      if (!course.refused()) {
        request.destroy();
        throw error;
      }
    }
    const response = await course.answered;
    const status = response.statusCode ?? 0;
    events.emit('upstream.request', {
      host,
      label: labelOf(host),
      method,
      path: url.pathname,
      status,
      ms: clock.monotonic() - startedAt,
    });
    const body = createBody(response, host, idle, clock);
    // Half a request stands on the connection: nothing can follow it.
    if (!request.writableEnded) void body.ended.then(() => request.destroy());
    return {status, headers: response.headers, url, body};
  };
}
