import {type IncomingMessage, type ServerResponse, STATUS_CODES} from 'node:http';
import type {Duplex} from 'node:stream';
import type {Action, Caller} from '../caller.ts';
import {type Clock, NOT_NEEDED} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import type {Events, RequestKind, RequestOutcome} from '../events.ts';
import type {Identity} from '../identity/authenticator.ts';
import {type Digest, isDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import type {RepositoryName} from '../oci/name.ts';
import {failureReason, storageError} from '../registry/failure.ts';
import {type CacheReport, outcomeOf} from '../registry/freshness.ts';
import {type Answer, cacheStatus, fieldsOf} from './answer.ts';
import {createIncomingBody, type IncomingBody} from './body.ts';
import type {Entrance} from './entrance.ts';
import {errorAnswer} from './errors.ts';
import {type Origin, originOf} from './forwarded.ts';
import {holderOf, type Limits} from './limits.ts';
import {closeLingering, mustEndConnection} from './lingering-close.ts';
import type {RequestEnd, RequestReports} from './request-reports.ts';
import {maxWriteAt} from './write-size.ts';

/** A request and its response, from start to end. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly entrance: Entrance;
  /** Who sent it, and the URL at which it reached the first trusted proxy, or this server. */
  origin: Origin;
  /** In the answer's header, its error body and the log. */
  readonly id: string;
  readonly body: IncomingBody;
  /** Aborted when the answer has ended or its client has left. */
  closed(): AbortSignal;
  /**
   * Counts this request, as its kind and its caller say, until its answer has ended.
   * @throws OciError 429 or 503 when too many run already
   */
  admit(caller: Caller): void;
  kind: RequestKind;
  /** The caller's own name. */
  caller: string;
  /** What the caller was authorized for. */
  action: Action | undefined;
  /** The registry that the request was routed to. */
  registry: string | undefined;
  repository: RepositoryName | undefined;
  /** For `OCI-Namespace`: the `ns` that chose that registry (dist-spec, Registry Proxying). */
  namespace: string | undefined;
  /** Who sent it; undefined before that is known. */
  identity: Identity | undefined;
  /** The door decides the same about each equal request. */
  isRepeatable: boolean;
  report: CacheReport | undefined;
  /** Why it was refused or failed: the message that the client received, or what interrupted its answer. */
  reason: string | undefined;
}

/** Writes answers: nothing else touches a response. */
export interface Sender {
  /**
   * Answers a request with what `produce` returns, or with the error that it throws, and emits `request.start`,
   * `request.end` and, for a defect, `request.fault`. Resolves when nothing more is to be done; never rejects.
   */
  respond(
    request: IncomingMessage,
    response: ServerResponse,
    entrance: Entrance,
    produce: (exchange: Exchange) => Promise<Answer>,
  ): Promise<void>;
  /** Destroys a response that broke after its headers went out, so that no client takes it for complete. */
  breakOff(exchange: Exchange, error: unknown): void;
}

export interface SenderParts {
  limits: Limits;
  reports: RequestReports;
  clock: Clock;
  events: Events;
}

export const createSender = (parts: SenderParts): Sender => new HttpSender(parts);

class HttpSender implements Sender {
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #limits: Limits;
  readonly #reports: RequestReports;

  constructor({limits, reports, clock, events}: SenderParts) {
    this.#limits = limits;
    this.#reports = reports;
    this.#clock = clock;
    this.#events = events;
  }

  async respond(
    request: IncomingMessage,
    response: ServerResponse,
    entrance: Entrance,
    produce: (exchange: Exchange) => Promise<Answer>,
  ): Promise<void> {
    const exchange = this.#begin(request, response, entrance);
    try {
      await this.#send(exchange, await produce(exchange));
    } catch (error) {
      const known = error instanceof OciError ? error : storageError(error);
      if (!known && !isUnwanted(error)) this.#events.emit('request.fault', {id: exchange.id, error});
      this.#limits.report(error, exchange.origin.client);
      await this.#send(exchange, errorAnswer(known ?? error, exchange.id));
    }
  }

  breakOff(exchange: Exchange, error: unknown): void {
    exchange.response.destroy();
    if (isUnwanted(error) || isDeparture(error)) return;
    const reason = failureReason(error);
    if (reason !== undefined) exchange.reason = reason;
    else this.#events.emit('request.fault', {id: exchange.id, error});
  }

  #begin(request: IncomingMessage, response: ServerResponse, entrance: Entrance): Exchange {
    const {headers, socket, method = '', url = ''} = request;
    // Once a connection has ended, its address is not known any more.
    const origin = originOf({peer: socket.remoteAddress, headers}, entrance);
    const slot = this.#limits.slot(method);
    const started = this.#reports.start({method, url, userAgent: headers['user-agent']});
    const exchange: Exchange = {
      request,
      response,
      entrance,
      origin,
      id: started.id,
      body: createIncomingBody(request, response, {limits: this.#limits.settings.bodies, clock: this.#clock}),
      closed: () => untilClosed(response),
      admit: (caller) => slot.take(exchange.kind, holderOf(caller, origin.client)),
      kind: 'other',
      caller: 'anonymous',
      action: undefined,
      registry: undefined,
      repository: undefined,
      namespace: undefined,
      identity: undefined,
      isRepeatable: false,
      report: undefined,
      reason: undefined,
    };
    response.once('close', () => {
      slot.free();
      this.#reports.end(started, endOf(exchange, origin.client), socket);
    });
    return exchange;
  }

  /** @throws TypeError before anything is sent, for a header field that cannot be written */
  async #send(exchange: Exchange, answer: Answer): Promise<void> {
    const {request, response, body: incoming} = exchange;
    const {status, body} = answer;
    writeHead(exchange, answer);
    exchange.report = answer.report;
    exchange.reason = answer.reason;
    const closes = response.getHeader('Connection') === 'close';
    if (status >= 400 && (await mustEndConnection(request, incoming, closes))) {
      return this.#sendLast(exchange, Buffer.isBuffer(body) ? body : undefined);
    }
    if (body === undefined || request.method === 'HEAD') response.end();
    else if (!Buffer.isBuffer(body)) await this.#stream(exchange, body);
    else if (body.length > maxWriteAt(exchange.entrance)) await this.#stream(exchange, [body]);
    else response.end(body);
  }

  /**
   * Sends a body chunk by chunk, each gone before the next is requested: a chunk's memory is reused then. The headers go
   * out with what is there at once, but without waiting for it: a client's time limit for them must not depend on the first
   * byte of a body.
   */
  async #stream(exchange: Exchange, bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const {response, entrance} = exchange;
    // More bytes than declared would be taken for the next answer on this connection, and fewer would leave the client
    // waiting (RFC 9112, section 6.3): node refuses both.
    response.strictContentLength = true;
    const headers = setImmediate(() => response.flushHeaders());
    const write = createWriter(response);
    const most = maxWriteAt(entrance);
    try {
      for await (const chunk of bytes) {
        for (let at = 0; at < chunk.length; at += most) {
          if (!(await write(chunk.subarray(at, at + most)))) return;
        }
      }
      response.end();
    } catch (error) {
      this.breakOff(exchange, error);
    } finally {
      clearImmediate(headers);
    }
  }

  /** Sends the last answer on a connection whose client is still sending. */
  async #sendLast({request, response}: Exchange, body: Buffer | undefined): Promise<void> {
    response.setHeader('Connection', 'close');
    const {promise: answered, resolve: end} = Promise.withResolvers<void>();
    const closed = closeLingering(request, answered, this.#clock);
    // An answer to HEAD has nothing but headers.
    response.flushHeaders();
    response.write(body ?? '', () => {
      request.socket.end();
      end();
    });
    await closed;
  }
}

/** @param client its address when the request began */
function endOf(exchange: Exchange, client: string | undefined): RequestEnd {
  const {response, kind, caller, action, registry, repository, body, report, reason} = exchange;
  return {
    kind,
    status: response.statusCode,
    outcome: outcomeIn(exchange),
    reason: reason ?? report?.warning,
    received: body.received,
    client,
    caller,
    action,
    registry,
    repository,
    digest: digestIn(response),
    cache: report && cacheStatus(report),
  };
}

/** The digest that an answer names. */
function digestIn(response: ServerResponse): Digest | undefined {
  const named = response.getHeader('Docker-Content-Digest');
  return typeof named === 'string' && isDigest(named) ? named : undefined;
}

function untilClosed(response: ServerResponse): AbortSignal {
  const closed = new AbortController();
  response.once('close', () => closed.abort(NOT_NEEDED));
  return closed.signal;
}

/** Sets status and headers. First removes those of an answer that could not be written. */
function writeHead(exchange: Exchange, answer: Answer): void {
  const {request, response, id, namespace} = exchange;
  for (const name of response.getHeaderNames()) if (name !== 'connection') response.removeHeader(name);
  response.statusCode = answer.status;
  response.setHeader('X-Request-Id', id);
  for (const [name, value] of fieldsOf(answer, request.method, namespace)) response.setHeader(name, value);
}

/** Returns a function that resolves when a chunk has left: true, or false when the client has. */
function createWriter(response: ServerResponse): (chunk: Uint8Array) => Promise<boolean> {
  let finish: ((sent: boolean) => void) | undefined;
  response.once('close', () => finish?.(false));
  return (chunk) =>
    new Promise((resolve) => {
      if (response.destroyed) return resolve(false);
      finish = resolve;
      response.write(chunk, (error) => resolve(!error));
    });
}

/** Without a known reason, an answer that was interrupted was interrupted by its client. */
function outcomeIn({response, reason, report}: Exchange): RequestOutcome {
  const {statusCode, writableFinished} = response;
  if (reason !== undefined) return statusCode >= 400 && statusCode < 500 ? 'refused' : 'failed';
  if (!writableFinished) return 'aborted';
  if (report) return outcomeOf(report);
  if (statusCode >= 500) return 'failed';
  return statusCode >= 400 ? 'refused' : 'done';
}

/** What was still being done for a client that has left ends with the reason of `Exchange.closed`. */
const isUnwanted = (error: unknown): boolean => error === NOT_NEEDED;

/** A client that went away is not a defect. */
const isDeparture = (error: unknown): boolean =>
  ['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE'].includes(errorCode(error) ?? '');

/** How long a connection that was answered with an error may take to close. */
const MAX_CLOSING_MS = 5000;

/**
 * Sends an error on a connection whose requests are not handled, and closes the connection whatever the client does.
 * @param method of the request, if it could be read: an answer to HEAD has no body (RFC 9112, section 6.3)
 */
export function sendOnSocket(socket: Duplex, error: OciError, clock: Clock, method?: string): void {
  const {status, headers, body} = errorAnswer(error, undefined);
  const fields = {...headers, 'Content-Length': String(body.length), Connection: 'close'};
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${method === 'HEAD' ? '' : body}`,
  );
  // The end of the other side is seen only by a reader, and after CONNECT there is none.
  socket.resume();
  socket.once(
    'close',
    clock.after(MAX_CLOSING_MS, () => socket.destroy()),
  );
}
