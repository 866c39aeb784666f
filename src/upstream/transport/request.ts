import {request as httpRequest, type IncomingMessage} from 'node:http';
import {request as httpsRequest} from 'node:https';
import {Readable} from 'node:stream';
import type {Got, OptionsInit, Request, RequestFunction} from 'got';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Agents, Network} from './agents.ts';
import {createBody, discard} from './body.ts';
import {ConnectionFault, connectionFault} from './fault.ts';
import type {Method, Reply} from './reply.ts';

/** Sent to every upstream; the version is package.json's. */
export const USER_AGENT = 'backref/0.1.0';

export interface RequestOptions {
  method: Method;
  url: URL;
  headers: Record<string, string>;
  /** Which addresses it may be sent to; default any. */
  network?: Network;
  /** The fields of an `application/x-www-form-urlencoded` body. */
  form?: Record<string, string>;
  body?: RepeatableBody;
}

/** A body that can be sent more than once. */
export interface RepeatableBody {
  /** Bytes. */
  size: number;
  /** Gives the bytes, anew at each call: a request may have to be sent again. */
  open(): AsyncIterable<Uint8Array>;
}

/** One HTTP exchange, without retries, redirects and tokens. The signal can end it until the headers arrive. */
export type Send = (request: RequestOptions, signal: AbortSignal) => Promise<Reply>;

export interface SendDeps {
  clock: Clock;
  events: Events;
  agents: Agents;
  /** The host's label in metrics: its own name when it is configured, otherwise `other`. */
  labelOf(host: string): string;
  /** Milliseconds. `connect` applies to DNS, TCP and TLS, each; `idle` to the time between bytes of a body. */
  timeouts: {connect: number; idle: number};
}

/**
 * Resolves with got's response, or rejects with an UpstreamFailure. got's own options for retries, redirects and limits
 * are not used: they work for one request, whereas the budget, the breaker and the tokens span a whole call.
 */
function responseOf(stream: Request, host: string, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => {
      reject(signal.reason);
      stream.destroy();
    };
    const stopListening = (): void => signal.removeEventListener('abort', giveUp);
    if (signal.aborted) giveUp();
    // Only until the headers arrive; got's own `signal` option would also end the body.
    else signal.addEventListener('abort', giveUp, {once: true});
    stream.once('response', (response) => {
      stopListening();
      resolve(response);
    });
    // Stays while the body is read, so that its errors do not go unhandled; the body's reader sees them.
    stream.on('error', (error) => {
      stopListening();
      if (isTimeout(error)) {
        const limit = error.message.match(/\d+ms/)?.[0] ?? '';
        const reason = `could not be connected to in time (${error.event}, ${limit})`;
        return reject(new ConnectionFault('unreachable', host, reason, true));
      }
      reject(connectionFault(error, host));
    });
  });
}

/** Told by its name, so that got need not be loaded for it. */
const isTimeout = (error: Error): error is Error & {event: string} =>
  error.name === 'TimeoutError' && 'event' in error;

/** The body option for got. An empty body is sent as an empty buffer: got would wait for the end of a missing one. */
function payloadOf({form, body}: RequestOptions): OptionsInit {
  if (form) return {form};
  if (!body) return {};
  if (body.size === 0) return {body: Buffer.alloc(0)};
  return {body: Readable.from(body.open(), {objectMode: false})};
}

/** Drops the forty or so options that got passes, nearly all undefined: node copies them twice for each request. */
const requestWithFewOptions: RequestFunction = (url, {method, headers, agent}, callback) => {
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return request(url, {method, headers, agent}, callback);
};

/** Loads got: a tenth of what a start would take, so later, but better before the first request. */
export const loadGot = async (): Promise<Got> => (await import('got')).default;

export function createSend({clock, events, agents, labelOf, timeouts}: SendDeps): Send {
  const loadClient = async (): Promise<Got> =>
    (await loadGot()).extend({
      request: requestWithFewOptions,
      decompress: false,
      followRedirect: false,
      retry: {limit: 0},
      // The body is read below got, which would count no bytes; node itself compares them with Content-Length.
      strictContentLength: false,
      throwHttpErrors: false,
      timeout: {lookup: timeouts.connect, connect: timeouts.connect, secureConnect: timeouts.connect},
      headers: {'user-agent': USER_AGENT, 'accept-encoding': 'identity'},
    });
  let client: Promise<Got> | undefined;

  /** @returns undefined when a reused connection turned out to be closed: send again. */
  const sendOnce = async (request: RequestOptions, signal: AbortSignal) => {
    const {method, url, headers, network = 'any'} = request;
    client ??= loadClient();
    const stream = (await client).stream(url, {
      method,
      headers,
      agent: agents[network],
      ...payloadOf(request),
    });
    return responseOf(stream, url.host, signal).catch((error: unknown) => {
      // A kept-alive connection that the server closed meanwhile shows nothing about the upstream. With a body, the
      // caller decides whether it may be sent twice.
      if (stream.reusedSocket && !request.body?.size && error instanceof ConnectionFault && error.transient)
        return undefined;
      throw error;
    });
  };

  return async (request, signal) => {
    const startedAt = clock.monotonic();
    let response: IncomingMessage | undefined;
    while (!response) response = await sendOnce(request, signal);
    const {method, url} = request;
    const status = response.statusCode ?? 0;
    // Only the path is reported: the query of a redirect's target is often a signature.
    events.emit('upstream.request', {
      host: url.host,
      label: labelOf(url.host),
      method,
      path: url.pathname,
      status,
      ms: clock.monotonic() - startedAt,
    });
    const body = createBody(response, url.host, timeouts.idle, clock);
    if (method === 'HEAD') {
      // Ends with the headers. Awaited, so that the next request finds the connection free.
      discard(body);
      await body.ended;
    }
    return {status, headers: response.headers, url, body};
  };
}
