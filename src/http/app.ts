import type {IncomingMessage, ServerResponse} from 'node:http';
import Koa, {type Context, type ParameterizedContext} from 'koa';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {Generations} from '../registry/generations.ts';
import type {Registries} from '../registry/registries.ts';
import type {ServedAgain} from '../registry/repeat.ts';
import type {BlobFiles} from '../storage/blob-files.ts';
import type {Answer} from './answer.ts';
import type {PreparedAnswer, ReadyAnswer} from './answer-table.ts';
import {callerOf, refuseLoop} from './caller.ts';
import {type AnswerFromConnection, createConnectionAnswers} from './connection-answers.ts';
import type {DoorParts} from './door.ts';
import type {Entrance} from './entrance.ts';
import {createFileRuns, type FileRuns} from './file-runs.ts';
import {createFileSender} from './file-sender.ts';
import {isLocal, originOf} from './forwarded.ts';
import {createRequestReader, type KnownRequest} from './known-request.ts';
import type {Limits} from './limits.ts';
import {createPreparedAnswers} from './prepared.ts';
import {createPreparedReplay, createPreparedReports, type PreparedReplay} from './prepared-reports.ts';
import {createPreparedSender, type Peer, peerOf} from './prepared-sender.ts';
import {headerOf, parseRequestTarget, refuseHosts, refuseManyHeaders, refuseOverlong} from './request.ts';
import {createRequestReports} from './request-reports.ts';
import {createRouter, endpointsOf, type RequestState, type Verbs} from './routes.ts';
import {createSender} from './send.ts';
import {createSentBytes} from './sent-bytes.ts';

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
  /** Bytes that answers may take which are kept to be given again, those of all threads together. */
  preparedBytes: number;
  /** As `createKeySecret` makes it: requests have equal keys here and in workers. */
  keySecret: string;
  generations: Pick<Generations, 'of' | 'slots'>;
  servedAgain: ServedAgain;
  /** The files that bodies of prepared answers lie in. */
  files: Pick<BlobFiles, 'open'>;
  clock: Clock;
  events: Events;
}

/** Answers requests, whichever listener they came in at. */
export interface App {
  /** @param learn gets the answer, if equal requests may be given it, and their key: for a worker that has none */
  handle(request: IncomingMessage, response: ServerResponse, entrance: Entrance, learn?: Learn): void;
  /** Answers below node's HTTP server what is read from a connection without a client certificate. */
  connection(peer: Peer, entrance: Entrance): AnswerFromConnection;
  readonly requests: RunningRequests;
  /**
   * Leaves memory for prepared answers to workers.
   * @param threads how many keep some, this one included
   * @returns the bytes that each of them may take
   */
  sharePrepared(threads: number): number;
}

/** The requests that have begun, and those that are not reported yet. */
interface RunningRequests {
  /** How many have begun and not ended. */
  inFlight(): number;
  /** Reports those that were counted and are not reported yet. */
  handOver(): void;
  /** Reports those that workers have answered. */
  readonly replay: PreparedReplay;
  /** Counts and reports those that workers answer from files. */
  readonly runs: FileRuns;
}

/** Takes a prepared answer, and the key of the requests that may be given it. */
export type Learn = (key: string, answer: PreparedAnswer) => void;

/** A request on its way to Koa. */
interface Arrival {
  readonly entrance: Entrance;
  readonly known: KnownRequest | undefined;
  readonly learn: Learn | undefined;
}

/** The OCI distribution API over Koa, which finds the answers and does not write them. */
export function createApp(parts: AppParts): App {
  const {verbs, registries, hasAdminListener, pseudonym, limits, generations, clock, events} = parts;
  const app = new Koa<RequestState>();
  const {reports, preparedReports, replay, runs, fileSender} = createReporting(parts);
  const sender = createSender({limits, reports, clock, events});
  const prepared = createPreparedAnswers({...parts, maxBytes: parts.preparedBytes});
  const preparedSender = createPreparedSender({limits, reports: preparedReports});
  const requests = createRequestReader(() => limits.settings.headers.count, parts.keySecret);
  const arrivals = new WeakMap<IncomingMessage, Arrival>();

  app.use((ctx, next) => {
    ctx.respond = false;
    const arrival = arrivals.get(ctx.req);
    if (!arrival) throw new Error('the request came in at no listener');
    const {entrance, known, learn} = arrival;
    return sender.respond(ctx.req, ctx.res, entrance, async (exchange): Promise<Answer> => {
      ctx.state.exchange = exchange;
      const begun = {configuration: generations.of('configuration'), logins: generations.of('logins')};
      ctx.state.registries = registries();
      refuseManyHeaders(ctx.req, limits.settings.headers.count);
      readTarget(ctx);
      ctx.state.caller = callerOf(headerOf(ctx, 'via'), isLocal(ctx.req.headers, entrance));
      refuseLoop(ctx.state.caller, pseudonym);
      await next();
      const {answer} = ctx.state;
      if (!answer) throw new Error('no route has answered');
      const kept = known && prepared.keep({known, ...begun}, exchange, answer);
      if (kept) learn?.(known.key, kept);
      return answer;
    });
  });
  app.use(createRouter(endpointsOf(verbs), parts, hasAdminListener).routes());

  // Koa reports errors of a response that is already being sent, such as a reset connection.
  app.on('error', (error: unknown, ctx: Context) => sender.breakOff(ctx.state['exchange'], error));
  const handle = app.callback();
  return {
    requests: {
      inFlight: () => reports.inFlight + preparedReports.inFlight,
      handOver: () => replay.all(preparedReports.take()),
      replay,
      runs,
    },
    handle(request, response, entrance, learn) {
      // A client certificate identifies the caller, and the request itself does not show it.
      const known = entrance.certificate ? undefined : requests.known(request, entrance.number);
      const answer = known && prepared.find(known);
      // What lies in a file is given below node's HTTP server alone.
      if (answer && !answer.file && !response.hasHeader('Connection')) {
        learn?.(known.key, plain(answer));
        if (preparedSender.respond(known, peerOf(request.socket), response, answer)) return;
      }
      arrivals.set(request, {entrance, known, learn});
      handle(request, response);
    },
    sharePrepared: (threads) => prepared.share(threads),
    connection: (peer, entrance) =>
      createConnectionAnswers({
        requests: requests.connection(entrance.number),
        find: (known) => prepared.find(known),
        sender: preparedSender,
        fileSender,
        entrance,
        peer,
        maxHead: limits.settings.headers.size,
      }),
  };
}

/** What reports the answers, and gives those that are reported while they are given. */
function createReporting(parts: AppParts) {
  const {files, clock, events} = parts;
  const sentBytes = createSentBytes();
  const reports = createRequestReports({sentBytes, clock, events});
  const replay = createPreparedReplay({...parts, reports});
  const preparedReports = createPreparedReports({
    sentBytes,
    isEachHeard: () => events.listenerCount('request.end') + events.listenerCount('request.start') > 0,
    given: replay.one,
    clock,
  });
  const runs = createFileRuns({...parts, slots: parts.generations.slots, reports});
  const fileSender = createFileSender({files, runs, sentBytes, events});
  return {reports, preparedReports, replay, runs, fileSender};
}

const plain = ({rendered: _, ...answer}: ReadyAnswer): PreparedAnswer => answer;

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
