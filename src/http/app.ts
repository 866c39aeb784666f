import Koa, {type Context} from 'koa';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {Access} from '../registry/access.ts';
import type {Registries} from '../registry/registries.ts';
import type {Answer} from './answer.ts';
import {callerOf, refuseLoop} from './caller.ts';
import {headerOf, parseRequestTarget, refuseHosts, refuseOverlong} from './request.ts';
import {createRouter, endpointsOf, type RequestState, type Verbs} from './routes.ts';
import {createSender} from './send.ts';

export interface AppParts {
  verbs: Verbs;
  /** Decides who may do what, before a verb is called. */
  access: Pick<Access, 'registry' | 'repository'>;
  /** The current configuration; each request keeps the one that it begins with. */
  registries: () => Registries;
  /** This server's own name in `Via`. */
  pseudonym: string;
  /** Whether only this machine can reach the listener. */
  isLocal: boolean;
  /** Addresses and networks of proxies whose `X-Forwarded-For` is trusted. */
  trustedProxies: readonly string[];
  clock: Clock;
  events: Events;
}

/** The OCI distribution API over Koa, which finds the answers and does not write them. */
export function createApp(parts: AppParts): Koa<RequestState> {
  const {verbs, access, registries, pseudonym, isLocal, trustedProxies, clock, events} = parts;
  const app = new Koa<RequestState>();
  const sender = createSender({trustedProxies, clock, events});

  app.use((ctx, next) => {
    ctx.respond = false;
    return sender.respond(ctx.req, ctx.res, async (exchange): Promise<Answer> => {
      ctx.state.exchange = exchange;
      ctx.state.registries = registries();
      readTarget(ctx);
      ctx.state.caller = callerOf(headerOf(ctx, 'via'), isLocal);
      refuseLoop(ctx.state.caller, pseudonym);
      await next();
      if (!ctx.state.answer) throw new Error('no route has answered');
      return ctx.state.answer;
    });
  });
  app.use(createRouter(endpointsOf(verbs), access).routes());

  // Koa reports errors of a response that is already being sent, such as a reset connection.
  app.on('error', (error: unknown, ctx: Context) => sender.breakOff(ctx.state['exchange'], error));
  return app;
}

/** Koa reads paths alone; a host in the target takes precedence over the header (RFC 9112, section 3.2.2). */
function readTarget(ctx: Context): void {
  refuseOverlong(ctx.originalUrl);
  refuseHosts(ctx.req);
  const {path, host} = parseRequestTarget(ctx.originalUrl);
  ctx.url = path;
  if (host !== undefined) ctx.req.headers.host = host;
}
