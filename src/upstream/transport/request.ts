import {request as httpRequest, type IncomingHttpHeaders, type IncomingMessage} from 'node:http';
import {request as httpsRequest} from 'node:https';
import {Readable} from 'node:stream';
import got, {type OptionsInit, type Request, type RequestFunction, TimeoutError} from 'got';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {UpstreamFailure} from '../port.ts';
import type {Agents, Network} from './agents.ts';
import {type Body, createBody, discard} from './body.ts';
import {ConnectionFault, connectionFault} from './fault.ts';

/** Sent to every upstream; the version is package.json's. */
export const USER_AGENT = 'backref/0.1.0';

export interface RequestOptions {
  method: 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';
  url: URL;
  headers: Record<string, string>;
  /** Which addresses it may be sent to; without it, any. */
  network?: Network;
  /** The fields of an `application/x-www-form-urlencoded` body. */
  form?: Record<string, string>;
  body?: RequestBody;
}

/** Bytes to send. */
export interface RequestBody {
  /** Their number. */
  size: number;
  /** Gives them, anew at each call: a request may have to be sent again. */
  open(): AsyncIterable<Uint8Array>;
}

/** An answer's head, with its body still to come. */
export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  /** What was asked in the end, redirects followed. */
  url: URL;
  body: Body;
}

/** One HTTP exchange: no retries, no redirects, no tokens. The signal ends it until the headers are here. */
export type Send = (request: RequestOptions, signal: AbortSignal) => Promise<Reply>;

export interface SendDeps {
  clock: Clock;
  events: Events;
  agents: Agents;
  /** The name of a host in figures: its own where it is configured, else `other`. */
  labelOf(host: string): string;
  /** Milliseconds, each: for looking the name up, for connecting, for the TLS handshake, between bytes of a body. */
  timeouts: {connect: number; idle: number};
}

/**
 * Resolves with got's response, or rejects with an UpstreamFailure. got decides nothing here: what its options
 * could do for one request, the budget, the breaker and the tokens have to decide for a call.
 */
function responseOf(stream: Request, host: string, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => {
      reject(signal.reason);
      stream.destroy();
    };
    const stopListening = (): void => signal.removeEventListener('abort', giveUp);
    if (signal.aborted) giveUp();
    // Only until the headers are here; got's own option would listen for the body's time as well.
    else signal.addEventListener('abort', giveUp, {once: true});
    stream.once('response', (response) => {
      stopListening();
      resolve(response);
    });
    // Stays for the body's time, whose faults are seen by whoever reads it.
    stream.on('error', (error) => {
      stopListening();
      if (error instanceof TimeoutError) {
        const reason = `was not connected to in time (${error.event}, ${error.message.match(/\d+ms/)?.[0] ?? ''})`;
        return reject(new ConnectionFault('unreachable', host, reason, true));
      }
      reject(connectionFault(error, host));
    });
  });
}

/** What got sends. Of an empty body only the length is told: got takes one that is missing for one still to come. */
function payloadOf({form, body}: RequestOptions): OptionsInit {
  if (form) return {form};
  if (!body) return {};
  if (body.size === 0) return {body: Buffer.alloc(0)};
  return {body: Readable.from(body.open(), {objectMode: false})};
}

/** got would hand node some forty options, nearly all of them undefined, and node copies them twice for each request. */
const sparingly: RequestFunction = (url, {method, headers, agent}, callback) => {
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return request(url, {method, headers, agent}, callback);
};

export function createSend({clock, events, agents, labelOf, timeouts}: SendDeps): Send {
  const client = got.extend({
    request: sparingly,
    decompress: false,
    followRedirect: false,
    retry: {limit: 0},
    // The body is read below got, which would miss every byte; node itself compares them with Content-Length.
    strictContentLength: false,
    throwHttpErrors: false,
    timeout: {lookup: timeouts.connect, connect: timeouts.connect, secureConnect: timeouts.connect},
    headers: {'user-agent': USER_AGENT, 'accept-encoding': 'identity'},
  });

  const once = async (request: RequestOptions, signal: AbortSignal) => {
    const {method, url, headers, network = 'any'} = request;
    const stream = client.stream(url, {method, headers, agent: agents[network], ...payloadOf(request)});
    return responseOf(stream, url.host, signal).catch((error: unknown) => {
      // A kept connection that the other side had closed meanwhile tells nothing about the upstream. Where a body went
      // along, whoever sends it decides whether it may be taken twice.
      if (stream.reusedSocket && !request.body?.size && error instanceof ConnectionFault && error.passing)
        return undefined;
      throw error;
    });
  };

  return async (request, signal) => {
    const startedAt = clock.monotonic();
    let response: IncomingMessage | undefined;
    while (!response) response = await once(request, signal);
    const {method, url} = request;
    const status = response.statusCode ?? 0;
    // The query of a redirect's target is often a signature: the path is all that may be told.
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
      // Ends with the headers; waited for, so that the next request finds the connection free.
      discard(body);
      await body.ended;
    }
    return {status, headers: response.headers, url, body};
  };
}

/** For an answer that did not come from the upstream itself, the host that it came from. */
export const whereFrom = ({url}: Pick<Reply, 'url'>, host: string): string =>
  url.host === host ? '' : ` (from ${url.host}, to which it redirects)`;

/** Reads one header as text; several of a name are joined. */
export const header = (headers: IncomingHttpHeaders, name: string): string | undefined => {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
};

/** `Content-Length` in bytes; undefined when it is missing. */
export function contentLength({headers}: Reply): number | undefined {
  const field = header(headers, 'content-length') ?? '';
  return /^\d{1,15}$/.test(field) ? Number(field) : undefined;
}

/** @throws UpstreamFailure `protocol` when the answer is encoded although identity was asked for. */
export function requireIdentity({headers, url}: Reply): void {
  const encoding = header(headers, 'content-encoding')?.trim().toLowerCase() ?? 'identity';
  if (encoding === 'identity' || encoding === '') return;
  throw new UpstreamFailure(
    'protocol',
    url.host,
    `answered with Content-Encoding ${encoding}, though identity was asked for`,
  );
}
