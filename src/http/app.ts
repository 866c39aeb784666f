import {randomUUID} from 'node:crypto';
import type {ServerResponse} from 'node:http';
import Koa, {type Context, type ParameterizedContext} from 'koa';
import type {Clock} from '../clock.ts';
import type {Events, RequestOutcome} from '../events.ts';
import {OciError} from '../oci/errors.ts';
import {failureReason} from '../registry/failure.ts';
import {outcomeOf} from '../registry/freshness.ts';
import type {Registries} from '../registry/registries.ts';
import {cacheStatus} from './answer.ts';
import {callerOf} from './caller.ts';
import {createClientAddress} from './client-address.ts';
import {errorAnswer} from './errors.ts';
import {answerAndLinger, endsConnection} from './lingering-close.ts';
import {parseTarget, refuseHosts, refuseOverlong} from './request.ts';
import {createRouter, type Verbs} from './routes.ts';
import {sendLarge} from './send.ts';
import {createSentBytes} from './sent-bytes.ts';
import type {RequestState} from './state.ts';

export interface AppParts {
  verbs: Verbs;
  /** The configuration of the moment; each request keeps the one it finds. */
  registries: () => Registries;
  /** This server's own name in `Via`. */
  pseudonym: string;
  /** Addresses and networks of proxies whose `X-Forwarded-For` is believed. */
  trustedProxies: readonly string[];
  clock: Clock;
  events: Events;
}

/** Characters of a client's `User-Agent` that are logged. */
const MAX_USER_AGENT = 256;

/** The OCI distribution API over Koa. */
export function createApp({
  verbs,
  registries,
  pseudonym,
  trustedProxies,
  clock,
  events,
}: AppParts): Koa<RequestState> {
  const app = new Koa<RequestState>();
  const clientAddress = createClientAddress(trustedProxies);
  const sentBytes = createSentBytes();

  /** Emits `request.end` when the answer, or the client, is gone. */
  function tellOfEnd(ctx: ParameterizedContext<RequestState>): void {
    const began = clock.monotonic();
    const {method, originalUrl: url, req, res, state} = ctx;
    // Of a connection that has ended, the address is not known any more.
    const client = clientAddress(req.socket.remoteAddress, ctx.get('X-Forwarded-For') || undefined);
    const userAgent = ctx.get('User-Agent').slice(0, MAX_USER_AGENT) || undefined;
    res.once('close', () => {
      const {id, kind, registry, received, report} = state;
      events.emit('request.end', {
        id,
        method,
        url,
        kind,
        status: res.statusCode,
        outcome: requestOutcome(res, state),
        reason: state.reason ?? report?.warning,
        ms: clock.monotonic() - began,
        received,
        bytes: sentBytes(req.socket),
        client,
        userAgent,
        registry,
        cache: report && cacheStatus(report),
      });
    });
  }

  app.use(async (ctx, next) => {
    ctx.state.id = randomUUID();
    ctx.state.registries = registries();
    ctx.state.received = 0;
    ctx.state.invited = false;
    ctx.state.kind = 'other';
    ctx.set('X-Request-Id', ctx.state.id);
    events.emit('request.start', {id: ctx.state.id, method: ctx.method, url: ctx.originalUrl});
    tellOfEnd(ctx);
    try {
      readTarget(ctx);
      ctx.state.caller = callerOf(ctx.get('Via') || undefined);
      refuseLoop(ctx.state.caller.via, pseudonym);
      await next();
      await sendLarge(ctx);
    } catch (error) {
      const body = answerError(ctx, error);
      ctx.state.reason = messageOf(error);
      if (!(error instanceof OciError)) events.emit('request.fault', {id: ctx.state.id, error});
      if (await endsConnection(ctx)) await answerAndLinger(ctx, body, clock);
    }
  });

  app.use(createRouter(verbs, clock).routes());

  // What breaks after the headers went out: the response is destroyed, so that nobody takes it for whole.
  app.on('error', (error: unknown, ctx?: Context) => {
    ctx?.res.destroy();
    if (isDeparture(error)) return;
    const reason = failureReason(error);
    if (ctx && reason !== undefined) ctx.state['reason'] = reason;
    else events.emit('request.fault', {id: ctx?.state['id'] ?? '', error});
  });
  return app;
}

/** Koa reads paths alone; a host in the target goes before the header (RFC 9112, section 3.2.2). */
function readTarget(ctx: Context): void {
  refuseOverlong(ctx.originalUrl);
  refuseHosts(ctx.req);
  const {path, host} = parseTarget(ctx.originalUrl);
  ctx.url = path;
  if (host !== undefined) ctx.req.headers.host = host;
}

/** An answer is broken off by whoever gave a reason, else by its client. */
function requestOutcome(
  {statusCode, writableFinished}: ServerResponse,
  {reason, report}: RequestState,
): RequestOutcome {
  if (reason !== undefined) return statusCode >= 400 && statusCode < 500 ? 'refused' : 'failed';
  if (!writableFinished) return 'aborted';
  if (report) return outcomeOf(report);
  if (statusCode >= 500) return 'failed';
  return statusCode >= 400 ? 'refused' : 'done';
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Gives the body of the answer. */
function answerError(ctx: Context, error: unknown): Buffer {
  const {status, headers, body} = errorAnswer(error, ctx.state['id']);
  for (const name of ctx.res.getHeaderNames()) {
    if (!KEPT.has(name)) ctx.remove(name);
  }
  ctx.status = status;
  ctx.set(headers);
  const bytes = Buffer.from(body);
  ctx.body = bytes;
  return bytes;
}

/** Headers of an answer that stay when it turns out to be an error. */
const KEPT = new Set(['x-request-id', 'oci-namespace', 'connection']);

/** A request that carries our own name in `Via` has gone round in a circle (RFC 9110, section 7.6.3). */
function refuseLoop(via: readonly string[], pseudonym: string): void {
  if (!via.some((entry) => entry.split(/\s+/)[1] === pseudonym)) return;
  throw new OciError('UNAVAILABLE', {
    status: 508,
    message:
      'this request came back to the proxy that sent it: an upstream in the configuration leads back here',
  });
}

/** A client that went away is no fault. */
const isDeparture = (error: unknown): boolean =>
  error instanceof Error &&
  'code' in error &&
  (error.code === 'ECONNRESET' || error.code === 'EPIPE' || error.code === 'ERR_STREAM_PREMATURE_CLOSE');
