import type {Socket} from 'node:net';
import type {Clock} from '../clock.ts';
import {createArrivals} from './arrivals.ts';
import type {AnswerFromConnection} from './connection-answers.ts';
import {IDLE_TIMEOUT_MS} from './keep-alive.ts';
import {type Peer, peerOf} from './prepared-sender.ts';

/**
 * Reads the requests on connections as long as each of them is whole, known, and has a prepared answer. The first other
 * bytes are passed on unread, with the connection.
 */
export interface FrontDoor {
  /** Takes a connection before its first request. */
  add(socket: Socket): void;
  /** Takes a connection after the answer to a request, where another one may begin. */
  addAgain(socket: Socket): void;
  /** Resolves when no answer is under way on a connection. */
  answered(socket: Socket): Promise<void>;
  /** Ends the connections that it has, each after the answer that is on its way. */
  close(): void;
}

export interface FrontDoorParts {
  /** Takes a connection over. @param unread what was read from it last, and not answered */
  pass(socket: Socket, unread: Buffer): void;
  /** Answers what is read from a connection. */
  connection(peer: Peer): AnswerFromConnection;
  /** Milliseconds in which the first request has to begin. */
  firstRequestTimeout: number;
  /** Ends a connection on which none has begun in time. */
  refuseLate(socket: Socket): void;
  clock: Pick<Clock, 'monotonic'>;
}

/** Node keeps a connection for so long beyond what it tells the client, whose next request may be on its way. */
const IDLE_MS = IDLE_TIMEOUT_MS + 1000;

export function createFrontDoor(parts: FrontDoorParts): FrontDoor {
  const waiting = new Map<Socket, WaitingConnection>();
  const shared = {...parts, waiting};
  const arrivals = createArrivals<WaitingConnection>((connection) => connection.begin(), parts.clock);
  return {
    add: (socket) => arrivals.add(new WaitingConnection(socket, shared, false)),
    addAgain: (socket) => new WaitingConnection(socket, shared, true).begin(),
    answered: async (socket) => waiting.get(socket)?.answered(),
    close() {
      for (const connection of waiting.values()) connection.close();
    },
  };
}

/** `waiting`: those that are not passed on. */
type ConnectionParts = FrontDoorParts & {waiting: Map<Socket, WaitingConnection>};

class WaitingConnection {
  readonly #peer: Peer;
  readonly #parts: ConnectionParts;
  readonly #answer: AnswerFromConnection;
  #isAnswered: boolean;
  /** An answer that is being given and takes longer. */
  #answering: Promise<boolean> | undefined;
  #isClosing = false;

  constructor(socket: Socket, parts: ConnectionParts, isAnswered: boolean) {
    this.#peer = peerOf(socket);
    this.#parts = parts;
    this.#answer = parts.connection(this.#peer);
    this.#isAnswered = isAnswered;
    parts.waiting.set(socket, this);
    socket.pause();
    socket.on('timeout', this.#expire);
    socket.on('close', this.#forget);
    socket.on('end', this.#end);
  }

  /** Reads the first request, whose time begins now. */
  begin(): void {
    const {socket} = this.#peer;
    if (!this.#isHere()) return;
    socket.setTimeout(this.#isAnswered ? IDLE_MS : this.#parts.firstRequestTimeout);
    socket.on('data', this.#read);
    socket.resume();
  }

  close(): void {
    this.#isClosing = true;
    if (this.#answering) return;
    const {socket} = this.#peer;
    this.#leave();
    if (socket.writableLength === 0) socket.destroy();
    else socket.end();
  }

  async answered(): Promise<void> {
    await this.#answering;
  }

  readonly #read = (bytes: Buffer): void => {
    const isAnswered = this.#answer(bytes);
    if (isAnswered === false) this.#passOn(bytes);
    else if (isAnswered !== true) void this.#wait(isAnswered, bytes);
    else if (!this.#isAnswered) {
      this.#isAnswered = true;
      this.#peer.socket.setTimeout(IDLE_MS);
    }
  };

  /**
   * Reads nothing until an answer is given, or left to others. The request stays in the stream meanwhile, which could end
   * otherwise: what has ended cannot be passed on.
   */
  async #wait(answer: Promise<boolean>, request: Buffer): Promise<void> {
    const {socket} = this.#peer;
    this.#answering = answer;
    socket.pause();
    socket.unshift(request);
    const isAnswered = await answer;
    this.#answering = undefined;
    if (socket.destroyed) return;
    socket.off('data', this.#read);
    socket.read(request.length);
    socket.on('data', this.#read);
    if (!isAnswered) {
      this.#passOn(request);
    } else if (this.#isClosing) {
      this.close();
    } else {
      this.#isAnswered = true;
      // The time in which the next request has to begin starts now.
      socket.setTimeout(IDLE_MS);
    }
    socket.resume();
  }

  readonly #end = (): void => void this.#peer.socket.end();

  readonly #forget = (): void => void this.#parts.waiting.delete(this.#peer.socket);

  readonly #expire = (): void => {
    if (this.#isBusy()) return;
    const {socket} = this.#peer;
    const {bytesRead} = socket;
    // While the server was busy with something else, a request may have arrived in time: the event loop reads it first.
    setImmediate(() => {
      if (this.#isHere() && socket.bytesRead === bytesRead && !this.#isBusy()) this.#endSilent();
    });
  };

  #endSilent(): void {
    const {socket} = this.#peer;
    this.#leave();
    if (this.#isAnswered) socket.destroy();
    else this.#parts.refuseLate(socket);
  }

  /** A client that is slow to read its answer has `listen.sendTimeout` for that. */
  #isBusy(): boolean {
    return this.#answering !== undefined || this.#peer.socket.writableLength > 0;
  }

  /** Whether the connection is neither passed on nor closed. */
  #isHere(): boolean {
    return this.#parts.waiting.get(this.#peer.socket) === this;
  }

  #passOn(bytes: Buffer): void {
    const {socket} = this.#peer;
    this.#leave();
    this.#parts.pass(socket, bytes);
  }

  #leave(): void {
    const {socket} = this.#peer;
    this.#forget();
    socket.setTimeout(0);
    socket.off('timeout', this.#expire);
    socket.off('close', this.#forget);
    socket.off('end', this.#end);
    socket.off('data', this.#read);
  }
}
