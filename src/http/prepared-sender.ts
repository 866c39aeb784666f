import type {ServerResponse} from 'node:http';
import type {Socket} from 'node:net';
import {ANONYMOUS} from '../caller.ts';
import type {PreparedAnswer, ReadyAnswer} from './answer-table.ts';
import {canonicalAddress} from './entrance.ts';
import type {KnownRequest} from './known-request.ts';
import {holderOf, type Limits} from './limits.ts';
import type {PreparedReports} from './prepared-reports.ts';
import type {StartedRequest} from './request-reports.ts';

/** The other end of a connection. */
export interface Peer {
  readonly socket: Socket;
  /** The client's address; undefined behind a Unix socket. */
  readonly client: string | undefined;
  /** Under which name its requests are counted while the caller is anonymous. */
  readonly holder: string;
}

export function peerOf(socket: Socket): Peer {
  const client = canonicalAddress(socket.remoteAddress ?? '');
  return {socket, client, holder: holderOf(ANONYMOUS, client)};
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
  limits: Pick<Limits, 'slot' | 'admits'>;
  reports: Pick<PreparedReports, 'start' | 'end'>;
}

export function createPreparedSender({limits, reports}: PreparedSenderParts): PreparedSender {
  /** @returns what ends the request, which counts against the limits until then */
  function run(started: StartedRequest, peer: Peer, answer: PreparedAnswer): (isWhole: boolean) => void {
    const slot = limits.slot(started.method);
    slot.take(answer.kind, holderAmong(answer, peer));
    return (isWhole) => {
      slot.free();
      reports.end(started, answer, peer, isWhole);
    };
  }

  /** Reads what follows once the client has taken the answer. */
  function endLater(started: StartedRequest, peer: Peer, answer: PreparedAnswer): void {
    const {socket} = peer;
    const end = run(started, peer, answer);
    socket.pause();
    socket.write('', (error) => {
      end(!error);
      if (!error) socket.resume();
    });
  }

  return {
    respond(request, peer, response, answer) {
      if (!limits.admits(answer.kind, holderAmong(answer, peer))) return false;
      const started = reports.start(request);
      const end = run(started, peer, answer);
      const {status, fields, body} = answer;
      response.once('close', () => end(response.writableFinished));
      response.writeHead(status, ['X-Request-Id', started.id, ...fields.flatMap(flat)]);
      response.end(body);
      return true;
    },

    write(request, peer, answer) {
      if (!limits.admits(answer.kind, holderAmong(answer, peer))) return false;
      const started = reports.start(request);
      const {socket} = peer;
      answer.rendered.writeTo(socket, started.id);
      // It began and ended in this turn, in which no other request could have taken a place.
      // Nothing waits either where the client had gone before anything was written.
      if (socket.writableLength > 0) endLater(started, peer, answer);
      else reports.end(started, answer, peer, !socket.errored && !socket.destroyed);
      return true;
    },
  };
}

const holderAmong = ({caller}: PreparedAnswer, {holder}: Peer): string =>
  caller === ANONYMOUS.names[0] ? holder : caller;

const flat = ([name, value]: PreparedAnswer['fields'][number]): string[] =>
  typeof value === 'string' ? [name, value] : value.flatMap((one) => [name, one]);
