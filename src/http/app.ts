import type {IncomingMessage, ServerResponse} from 'node:http';
import Koa, {type Context, type ParameterizedContext} from 'koa';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {Registries} from '../registry/registries.ts';
import type {Answer} from './answer.ts';
import {callerOf, refuseLoop} from './caller.ts';
import type {DoorParts} from './door.ts';
import type {Entrance} from './entrance.ts';
import {isLocal, originOf} from './forwarded.ts';
import type {Limits} from './limits.ts';
import {headerOf, parseRequestTarget, refuseHosts, refuseManyHeaders, refuseOverlong} from './request.ts';
import {createRouter, endpointsOf, type RequestState, type Verbs} from './routes.ts';
import {createSender} from './send.ts';

export interface AppParts extends DoorParts {
  verbs: Verbs;
  /** The current configuration; each request keeps the one that it begins with. */
  registries: () => Registries;
  /** Whether metrics are for the listeners of operators alone. */
  hasAdminListener: boolean;
  /** This server's own name in `Via`. */
  pseudonym: string;
  /** How many requests may run at the same time. */
  limits: Limits;
  clock: Clock;
  events: Events;
}

/** Answers requests, whichever listener they came in at. */
export interface App {
  handle(request: IncomingMessage, response: ServerResponse, entrance: Entrance): void;
}

/** The OCI distribution API over Koa, which finds the answers and does not write them. */
export function createApp(parts: AppParts): App {
  const {verbs, registries, hasAdminListener, pseudonym, limits, clock, events} = parts;
  const app = new Koa<RequestState>();
  const sender = createSender({limits, clock, events});
  const entrances = new WeakMap<IncomingMessage, Entrance>();

  app.use((ctx, next) => {
    ctx.respond = false;
    const entrance = entrances.get(ctx.req);
    if (!entrance) throw new Error('the request came in at no listener');
    return sender.respond(ctx.req, ctx.res, entrance, async (exchange): Promise<Answer> => {
      ctx.state.exchange = exchange;
      ctx.state.registries = registries();
      refuseManyHeaders(ctx.req, limits.settings.headers.count);
      readTarget(ctx);
      ctx.state.caller = callerOf(headerOf(ctx, 'via'), isLocal(ctx.req.headers, entrance));
      refuseLoop(ctx.state.caller, pseudonym);
      await next();
      if (!ctx.state.answer) throw new Error('no route has answered');
      return ctx.state.answer;
    });
  });
  app.use(createRouter(endpointsOf(verbs), parts, hasAdminListener).routes());

  // Koa reports errors of a response that is already being sent, such as a reset connection.
  app.on('error', (error: unknown, ctx: Context) => sender.breakOff(ctx.state['exchange'], error));
  const handle = app.callback();
  return {
    handle(request, response, entrance) {
      entrances.set(request, entrance);
      handle(request, response);
    },
  };
}

/**
 * Koa reads paths alone. A host in the target takes precedence over the header (RFC 9112, section 3.2.2), and both give
 * way to the host that a trusted proxy says it was asked for.
 */
function readTarget(ctx: ParameterizedContext<RequestState>): void {
  refuseOverlong(ctx.originalUrl);
  refuseHosts(ctx.req);
  const {path, host} = parseRequestTarget(ctx.originalUrl);
  ctx.url = path;
  const {exchange} = ctx.state;
  const {socket, headers} = ctx.req;
  if (host !== undefined) {
    headers.host = host;
    const {client} = exchange.origin;
    exchange.origin = {...originOf({peer: socket.remoteAddress, headers}, exchange.entrance), client};
  }
  headers.host = exchange.origin.host ?? headers.host;
}
