import type {ServerResponse} from 'node:http';
import type {Socket} from 'node:net';
import type {RequestOutcome} from '../events.ts';
import type {Authenticator} from '../identity/authenticator.ts';
import {OciError} from '../oci/errors.ts';
import type {Served} from '../registry/repeat.ts';
import type {PreparedAnswer, ReadyAnswer} from './answer-table.ts';
import type {KnownRequest} from './known-request.ts';
import {holderOf, type Limits, type Slot} from './limits.ts';
import type {RequestReports, StartedRequest} from './request-reports.ts';

/** The other end of a connection. */
export interface Peer {
  readonly socket: Socket;
  /** The client's address; undefined behind a Unix socket. */
  readonly client: string | undefined;
}

/**
 * Gives prepared answers. Each counts against the limits and is reported like any other. Both methods return false, and
 * have done nothing, where the limits allow no more: the ordinary way refuses the request then.
 */
export interface PreparedSender {
  /** By node's HTTP server. */
  respond(request: KnownRequest, peer: Peer, response: ServerResponse, answer: PreparedAnswer): boolean;
  /** Below it, in one write. */
  write(request: KnownRequest, peer: Peer, answer: ReadyAnswer): boolean;
}

export interface PreparedSenderParts {
  limits: Limits;
  reports: RequestReports;
  authenticator: Pick<Authenticator, 'used'>;
  /** Counts and reports what was served once more. */
  servedAgain(served: Served): void;
}

/** A request that is being answered. */
interface Running {
  readonly slot: Slot;
  readonly started: StartedRequest;
}

export function createPreparedSender({
  limits,
  reports,
  authenticator,
  servedAgain,
}: PreparedSenderParts): PreparedSender {
  function begin({method, target, userAgent}: KnownRequest, {client}: Peer, answer: PreparedAnswer) {
    const slot = limits.slot(method);
    try {
      slot.take(answer.kind, holderOf({names: [answer.caller]}, client));
    } catch (error) {
      if (error instanceof OciError) return undefined;
      throw error;
    }
    const started = reports.start({method, url: target, userAgent});
    authenticator.used(answer.login);
    servedAgain(answer.repeat.served);
    return {slot, started};
  }

  function end({slot, started}: Running, {socket, client}: Peer, answer: PreparedAnswer, isWhole: boolean) {
    slot.free();
    const {status, kind, caller, action, registry, repository, digest, cache} = answer;
    const outcome: RequestOutcome = isWhole ? 'hit' : 'aborted';
    const facts = {kind, status, outcome, caller, action, registry, repository, digest, cache, client};
    reports.end(started, {...facts, received: 0, reason: undefined}, socket);
  }

  return {
    respond(request, peer, response, answer) {
      const running = begin(request, peer, answer);
      if (!running) return false;
      const {status, fields, body} = answer;
      response.once('close', () => end(running, peer, answer, response.writableFinished));
      response.writeHead(status, ['X-Request-Id', running.started.id, ...fields.flatMap(flat)]);
      response.end(body);
      return true;
    },

    write(request, peer, answer) {
      const running = begin(request, peer, answer);
      if (!running) return false;
      const {socket} = peer;
      answer.rendered.writeTo(socket, running.started.id);
      if (socket.writableLength === 0) {
        // Nothing waits either where the client had gone before anything was written.
        end(running, peer, answer, !socket.errored && !socket.destroyed);
        return true;
      }
      // What follows is read once the client has taken this.
      socket.pause();
      socket.write('', (error) => {
        end(running, peer, answer, !error);
        if (!error) socket.resume();
      });
      return true;
    },
  };
}

const flat = ([name, value]: PreparedAnswer['fields'][number]): string[] =>
  typeof value === 'string' ? [name, value] : value.flatMap((one) => [name, one]);
