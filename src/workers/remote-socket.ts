import {Duplex} from 'node:stream';
import type {PreparedAnswer} from '../http/answer-table.ts';
import type {AdoptedSocket} from '../http/listener.ts';
import type {ConnectionOrder, OwnBytes} from './messages.ts';

/** The worker that has a connection. */
export interface RemoteWorker {
  /** Tells it what to do with the connection. The memory of `owned` is given away. */
  command(order: DistributedOmit<ConnectionOrder, 'id'>, owned?: readonly ArrayBuffer[]): void;
  keep(key: string, answer: PreparedAnswer): void;
}

/**
 * The most that one message brings to the worker, in bytes. All that is under way there is kept a second time, for each
 * of its clients.
 */
const MAX_MESSAGE_BYTES = 256 * 1024;

type DistributedOmit<Type, Key extends keyof Type> = Type extends unknown ? Omit<Type, Key> : never;

/**
 * A client's connection that a worker has, for node's HTTP server in the owner. What is written here goes to the client,
 * and a write has ended once the operating system has taken it, as if the connection were here.
 */
export class RemoteSocket extends Duplex implements AdoptedSocket {
  readonly remoteAddress: string | undefined;
  readonly #worker: RemoteWorker;
  /** Bytes that the operating system has taken. */
  #sent = 0;
  /** The write under way. */
  #writing: {length: number; end: () => void} | undefined;
  /** What the worker has not been told of it. */
  #unsent: Uint8Array[] = [];
  /** Bytes that have arrived and are not reported as taken. */
  #arrived = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Whether the worker's end of it has closed: only then has its place been given back. */
  #isClosed = false;
  /** Ends the destruction that has begun. */
  #end: (() => void) | undefined;

  constructor(remoteAddress: string | undefined, worker: RemoteWorker) {
    super({allowHalfOpen: true});
    this.remoteAddress = remoteAddress;
    this.#worker = worker;
  }

  /** As of `net.Socket`: with what waits to be sent. */
  get bytesWritten(): number {
    return this.#sent + this.writableLength;
  }

  rest(): void {
    this.#worker.command({type: 'rest'});
  }

  /** The worker has taken the connection back, and knows for how long it is idle. */
  opened(): void {
    this.setTimeout(0);
  }

  keep(key: string, answer: PreparedAnswer): void {
    this.#worker.keep(key, answer);
  }

  /** The client has sent something. */
  received(bytes: OwnBytes): void {
    this.#timer?.refresh();
    if (this.destroyed) return;
    this.#arrived += bytes.length;
    if (this.push(Buffer.from(bytes.buffer))) this.#take();
  }

  /** The client sends nothing more. */
  ended(): void {
    if (!this.destroyed) this.push(null);
  }

  /** The connection has ended. @param error what ended it, if anything did */
  closedBy(error: Error | undefined): void {
    this.#isClosed = true;
    if (this.#end) this.#end();
    else this.destroy(error);
  }

  /** The operating system has taken what the worker was last told to write. */
  written(): void {
    this.#timer?.refresh();
    if (this.#unsent.length > 0) return void this.#sendPart();
    const writing = this.#writing;
    this.#writing = undefined;
    this.#sent += writing?.length ?? 0;
    writing?.end();
  }

  /** As of `net.Socket`: node's HTTP server ends idle connections by it. @param ms 0 for none */
  setTimeout(ms: number): this {
    clearTimeout(this.#timer);
    this.#timer = ms > 0 ? setTimeout(() => this.emit('timeout'), ms).unref() : undefined;
    return this;
  }

  /** As of `net.Socket`: node's HTTP server calls it after the last answer. */
  destroySoon(): void {
    this.end(() => this.destroy());
  }

  override _read(): void {
    this.#take();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, end: () => void): void {
    this.#write([chunk], end);
  }

  override _writev(chunks: {chunk: Buffer}[], end: () => void): void {
    this.#write(
      chunks.map(({chunk}) => chunk),
      end,
    );
  }

  override _final(end: () => void): void {
    this.#worker.command({type: 'end'});
    end();
  }

  override _destroy(error: Error | null, end: (error: Error | null) => void): void {
    clearTimeout(this.#timer);
    this.#end = () => end(error);
    if (this.#isClosed) this.#end();
    else this.#worker.command({type: 'destroy'});
  }

  #take(): void {
    if (this.#arrived > 0) this.#worker.command({type: 'taken', count: this.#arrived});
    this.#arrived = 0;
  }

  #write(chunks: Uint8Array[], end: () => void): void {
    this.#writing = {length: lengthOf(chunks), end};
    this.#unsent = chunks;
    this.#sendPart();
  }

  #sendPart(): void {
    // Memory of its own, to be given away: a buffer of node's pool would take its neighbours along.
    const bytes = new Uint8Array(Math.min(lengthOf(this.#unsent), MAX_MESSAGE_BYTES));
    let rest = bytes;
    for (
      let chunk = this.#unsent.shift();
      chunk;
      chunk = rest.length > 0 ? this.#unsent.shift() : undefined
    ) {
      const part = chunk.subarray(0, rest.length);
      rest.set(part);
      rest = rest.subarray(part.length);
      if (part.length < chunk.length) this.#unsent.unshift(chunk.subarray(part.length));
    }
    this.#worker.command({type: 'write', bytes}, [bytes.buffer]);
  }
}

const lengthOf = (chunks: readonly Uint8Array[]): number => chunks.reduce((sum, {length}) => sum + length, 0);
