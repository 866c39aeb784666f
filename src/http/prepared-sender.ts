import type {ServerResponse} from 'node:http';
import type {Socket} from 'node:net';
import {OciError} from '../oci/errors.ts';
import type {PreparedAnswer, ReadyAnswer} from './answer-table.ts';
import type {KnownRequest} from './known-request.ts';
import {holderOf, type Limits, type Slot} from './limits.ts';
import type {PreparedReports} from './prepared-reports.ts';
import type {StartedRequest} from './request-reports.ts';

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
  limits: Pick<Limits, 'slot'>;
  reports: Pick<PreparedReports, 'start' | 'end'>;
}

/** A request that is being answered. */
interface Running {
  readonly slot: Slot;
  readonly started: StartedRequest;
}

export function createPreparedSender({limits, reports}: PreparedSenderParts): PreparedSender {
  function begin(request: KnownRequest, {client}: Peer, answer: PreparedAnswer): Running | undefined {
    const slot = limits.slot(request.method);
    try {
      slot.take(answer.kind, holderOf({names: [answer.caller]}, client));
    } catch (error) {
      if (error instanceof OciError) return undefined;
      throw error;
    }
    return {slot, started: reports.start(request)};
  }

  function end({slot, started}: Running, peer: Peer, answer: PreparedAnswer, isWhole: boolean): void {
    slot.free();
    reports.end(started, answer, peer, isWhole);
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
