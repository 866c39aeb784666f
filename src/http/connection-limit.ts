import type {Duplex} from 'node:stream';
import type {Cancel, Clock} from '../clock.ts';
import {OciError} from '../oci/errors.ts';
import type {ClientSocket} from './connections.ts';
import {canonicalAddress, type Entrance} from './entrance.ts';
import {type Limits, networkOf} from './limits.ts';

/** Counts the connections of one listener, and remembers which of them are not served. */
export interface ConnectionLimit {
  /** Counts a connection until it closes. One too many is to be answered with `refusalOf`, and ends soon in any case. */
  add(socket: ClientSocket): void;
  /** Why no request on a connection is served; undefined where they are. */
  refusalOf(socket: Duplex): OciError | undefined;
}

export interface ConnectionLimitParts {
  entrance: Pick<Entrance, 'isSecure' | 'isTrustedProxy' | 'serves'>;
  limits: Pick<Limits, 'connect' | 'report'>;
  clock: Clock;
}

/** How long a connection that is not served may take to send its request, and to read the answer. */
const MAX_REFUSAL_MS = 5000;

/** How many connections may be answered with a refusal at the same time. Those beyond are closed without an answer. */
const MAX_REFUSALS = 1000;

export const createConnectionLimit = (parts: ConnectionLimitParts): ConnectionLimit =>
  new CountedConnections(parts);

class CountedConnections implements ConnectionLimit {
  readonly #entrance: ConnectionLimitParts['entrance'];
  readonly #limits: ConnectionLimitParts['limits'];
  readonly #clock: Clock;
  readonly #refused = new Map<Duplex, OciError>();

  constructor({entrance, limits, clock}: ConnectionLimitParts) {
    this.#entrance = entrance;
    this.#limits = limits;
    this.#clock = clock;
  }

  add(socket: ClientSocket): void {
    // What operators and monitoring ask has a listener of its own so that it is answered while the others are busy.
    if (this.#entrance.serves === 'admin') return;
    const address = canonicalAddress(socket.remoteAddress ?? '');
    // A trusted proxy has the connections of many clients, and so has a Unix socket.
    const isShared = address === undefined || this.#entrance.isTrustedProxy(address);
    try {
      socket.once('close', this.#limits.connect(isShared ? undefined : networkOf(address)));
    } catch (error) {
      if (!(error instanceof OciError)) throw error;
      this.#limits.report(error, address);
      this.#refuse(socket, error);
    }
  }

  refusalOf(socket: Duplex): OciError | undefined {
    return this.#refused.get(socket);
  }

  #refuse(socket: ClientSocket, error: OciError): void {
    // An answer in TLS would cost a handshake, which is more than what is being saved.
    if (this.#entrance.isSecure || this.#refused.size >= MAX_REFUSALS) return void socket.destroy();
    this.#refused.set(socket, error);
    const cancel: Cancel = this.#clock.after(MAX_REFUSAL_MS, () => socket.destroy());
    socket.once('close', () => {
      cancel();
      this.#refused.delete(socket);
    });
  }
}
