import type {Socket} from 'node:net';
import {isLoneRequest} from './lone-request.ts';
import type {ConnectionOrder, ToOwner} from './messages.ts';

export type Post = (message: ToOwner, owned?: readonly ArrayBuffer[]) => void;

/** How long the end of a connection may take. */
const MAX_FINISH_MS = 5000;

/** A client that sends more than this has to wait for the owner. */
const MAX_UNTAKEN_BYTES = 256 * 1024;

export interface RelayedConnectionParts {
  /** Names it to the owner. */
  id: number;
  socket: Socket;
  post: Post;
  /** Has the front door read it: a request may begin. @param unread what the client has sent meanwhile */
  open(unread: Buffer | undefined): void;
  /** Resolves when the front door has given the answer that is under way. */
  answered(): Promise<void>;
}

/**
 * A client's connection in a worker. The front door has it until a request comes that is not prepared. From then on what
 * the client sends is relayed to the owner, until everything that was relayed is answered.
 */
export class RelayedConnection {
  readonly #parts: RelayedConnectionParts;
  /**
   * - `open`: the front door has it.
   * - `asked`: the owner answers one whole request, which is all that was relayed since the front door had it.
   * - `relayed`: the owner has it. Where a request begins is not known here any more.
   */
  #state: 'open' | 'asked' | 'relayed' = 'relayed';
  /** A whole request that the client sent before it had the answer to the one before. */
  #held: Buffer | undefined;

  /** Bytes that were relayed and that the owner has not taken yet. */
  #untaken = 0;

  constructor(parts: RelayedConnectionParts) {
    this.#parts = parts;
  }

  /** @param unread what the front door has read and not answered */
  relay(unread: Buffer | undefined): void {
    const {socket} = this.#parts;
    socket.on('data', this.#read);
    socket.on('end', this.#end);
    this.#state = unread && isLoneRequest(unread) ? 'asked' : 'relayed';
    if (unread) this.#send(unread);
  }

  /** Has the owner refuse a client that has sent no request in time. */
  refuseLate(): void {
    this.relay(undefined);
    this.#parts.post({type: 'late', id: this.#parts.id});
  }

  /** Leaves all of it to the owner. */
  leave(): void {
    this.relay(undefined);
    this.#parts.socket.resume();
  }

  /** Leaves what the owner has to it, also after the answer that is under way. */
  stay(): void {
    if (this.#state === 'asked') this.#relayHeld();
  }

  /** Does what the owner says. */
  obey(order: ConnectionOrder): void {
    const {id, socket, post} = this.#parts;
    switch (order.type) {
      case 'admitted':
        this.open();
        return;
      case 'refused':
        this.leave();
        return;
      case 'write':
        socket.write(Buffer.from(order.bytes.buffer), (error) => {
          if (error) return;
          // The garbage collector would free it much later.
          order.bytes.buffer.transfer(0);
          post({type: 'written', id});
        });
        return;
      case 'rest':
        if (this.#state !== 'asked') return;
        post({type: 'opened', id});
        this.open();
        return;
      case 'taken':
        this.#untaken -= order.count;
        if (this.#state !== 'open' && this.#untaken < MAX_UNTAKEN_BYTES) socket.resume();
        return;
      case 'end':
        if (this.#state !== 'open') socket.end();
        return;
      case 'destroy':
        if (this.#state === 'open') void this.#parts.answered().then(() => this.#destroy());
        else this.#destroy();
    }
  }

  /** Lets a request begin. */
  open(): void {
    const {socket, open} = this.#parts;
    const held = this.#held;
    this.#held = undefined;
    this.#state = 'open';
    socket.off('data', this.#read);
    socket.off('end', this.#end);
    open(held);
  }

  readonly #read = (bytes: Buffer): void => {
    // Requests of one connection are answered one after the other in any case.
    if (this.#state === 'asked' && !this.#held && isLoneRequest(bytes)) {
      this.#held = bytes;
      return;
    }
    this.#relayHeld();
    this.#send(bytes);
  };

  readonly #end = (): void => {
    this.#relayHeld();
    this.#parts.post({type: 'ended', id: this.#parts.id});
  };

  #relayHeld(): void {
    this.#state = 'relayed';
    if (this.#held) this.#send(this.#held);
    this.#held = undefined;
  }

  #send(bytes: Buffer): void {
    const {id, socket, post} = this.#parts;
    const own = new Uint8Array(bytes);
    this.#untaken += own.length;
    if (this.#untaken >= MAX_UNTAKEN_BYTES) socket.pause();
    post({type: 'data', id, bytes: own}, [own.buffer]);
  }

  /**
   * Bytes that the operating system has taken must still reach the client. It drops them if the connection is closed while
   * something from the client is unread (RFC 9112, section 9.6), so that is read and discarded for a while.
   */
  #destroy(): void {
    const {socket} = this.#parts;
    const isInterrupted = this.#state !== 'open' && !socket.writableEnded && socket.writableLength > 0;
    if (isInterrupted || socket.destroyed) return void socket.destroy();
    socket.off('data', this.#read);
    socket.off('end', this.#end);
    socket.end();
    socket.resume();
    socket.once('end', () => socket.writableFinished && socket.destroy());
    socket.once('finish', () => socket.readableEnded && socket.destroy());
    setTimeout(() => socket.destroy(), MAX_FINISH_MS).unref();
  }
}
