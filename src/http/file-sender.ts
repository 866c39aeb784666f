import type {Socket} from 'node:net';
import {createWorkQueue} from '../concurrency.ts';
import type {Events} from '../events.ts';
import {failureReason} from '../registry/failure.ts';
import type {BlobFile, BlobFiles, OpenBlob} from '../storage/blob-files.ts';
import type {ReadyAnswer} from './answer-table.ts';
import type {FileRequest, FileRun} from './file-runs.ts';
import type {KnownRequest} from './known-request.ts';
import {reportedOf} from './prepared-reports.ts';
import type {Peer} from './prepared-sender.ts';
import type {SentBytes} from './sent-bytes.ts';

/** Gives prepared answers whose bodies lie in files, below node's HTTP server. */
export interface FileSender {
  /** How many are being given. */
  readonly running: number;
  /**
   * Gives one, piece by piece. Nothing else may be written to the connection meanwhile.
   * @param most bytes of one write
   * @returns false, with nothing written, where the ordinary way has to answer. Never rejects
   */
  write(request: KnownRequest, peer: Peer, answer: FileAnswer, most: number): Promise<boolean>;
}

type FileAnswer = ReadyAnswer & {readonly file: BlobFile};

export interface FileSenderParts {
  files: Pick<BlobFiles, 'open'>;
  /** As of `FileRuns`, or the same in another thread. */
  runs: {begin(request: FileRequest): FileRun | undefined | Promise<FileRun | undefined>};
  sentBytes: SentBytes;
  events: Events;
}

export const createFileSender = (parts: FileSenderParts): FileSender => new PieceSender(parts);

/** A file whose first piece is read. */
interface Reading {
  readonly file: OpenBlob;
  readonly first: Uint8Array;
  readonly pieces: AsyncGenerator<Uint8Array, void, void>;
}

/** An answer that has begun. */
interface Begun {
  readonly run: FileRun;
  readonly answer: FileAnswer;
  readonly socket: Socket;
  /** The first piece, and those that follow it. */
  readonly first: Uint8Array;
  readonly pieces: AsyncIterable<Uint8Array>;
  readonly most: number;
}

class PieceSender implements FileSender {
  running = 0;
  readonly #parts: FileSenderParts;
  /** Answers of one piece, each of which takes memory when it begins. */
  readonly #beginnings = createWorkQueue(CONCURRENCY);

  constructor(parts: FileSenderParts) {
    this.#parts = parts;
  }

  async write(request: KnownRequest, peer: Peer, answer: FileAnswer, most: number): Promise<boolean> {
    this.running += 1;
    const reading = await this.#begin(answer.file, most).catch(() => undefined);
    try {
      return reading !== undefined && (await this.#give(reading, request, peer, {answer, most}));
    } catch {
      return false;
    } finally {
      this.running -= 1;
      // The next request need not wait for that.
      if (reading) this.#end(reading).catch((error: unknown) => this.#fault(error));
    }
  }

  /** Clients of a larger file begin together, so that they share what is read of it. */
  #begin(blob: BlobFile, most: number): Promise<Reading> {
    const open = () => this.#open(blob);
    return blob.size > most ? open() : this.#beginnings.run(open);
  }

  /** Begins to read a file: a disk that fails by then is left to the ordinary way. */
  async #open(blob: BlobFile): Promise<Reading> {
    const file = await this.#parts.files.open(blob);
    const pieces = file.read();
    try {
      const {value: first = NOTHING} = await pieces.next();
      return {file, first, pieces};
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #give(
    {first, pieces}: Reading,
    {method, target: url, userAgent}: KnownRequest,
    {socket, client}: Peer,
    {answer, most}: Pick<Begun, 'answer' | 'most'>,
  ): Promise<boolean> {
    const asked = {request: {method, url, userAgent}, answer: reportedOf(answer), client};
    const run = await this.#parts.runs.begin(asked);
    if (run) await this.#send({run, answer, socket, first, pieces, most});
    return run !== undefined;
  }

  async #end({file, pieces}: Reading): Promise<void> {
    await pieces.return();
    await file.close();
  }

  /** Sends all of it. Never rejects: what fails now ends the connection, so that no client takes the answer for complete. */
  async #send({run, answer, socket, first, pieces, most}: Begun): Promise<void> {
    const writer = new AcknowledgedWriter(socket);
    let hasEnded = false;
    const end = (isWhole: boolean, reason?: string): void => {
      if (!hasEnded) run.end({bytes: this.#parts.sentBytes(socket), isWhole, reason});
      hasEnded = true;
    };
    const leave = () => end(false);
    socket.once('close', leave);
    try {
      const head = first.subarray(0, most);
      answer.rendered.writeTo(socket, run.id, head);
      const isTaken = (await writer.taken()) && (await writer.writeAll(first.subarray(head.length), most));
      end(isTaken && (await writeEach(writer, pieces, most)));
    } catch (error) {
      socket.destroy();
      const reason = failureReason(error);
      if (reason === undefined) this.#parts.events.emit('request.fault', {id: run.id, error});
      end(false, reason);
    } finally {
      socket.off('close', leave);
      writer.end();
    }
  }

  #fault(error: unknown): void {
    this.#parts.events.emit('server.fault', {origin: 'promise', error});
  }
}

/** How many answers of one piece read it at the same time: by default, the system reads four files at a time for Node. */
const CONCURRENCY = 4;

const NOTHING = new Uint8Array(0);

/** @returns whether the client has taken all of it */
async function writeEach(
  writer: AcknowledgedWriter,
  pieces: AsyncIterable<Uint8Array>,
  most: number,
): Promise<boolean> {
  for await (const piece of pieces) if (!(await writer.writeAll(piece, most))) return false;
  return true;
}

/** Writes to a socket, and waits until the system has taken it: only then may the memory be used again. */
class AcknowledgedWriter {
  readonly #socket: Socket;
  #finish: ((isTaken: boolean) => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.once('close', this.#leave);
  }

  end(): void {
    this.#socket.off('close', this.#leave);
  }

  /** Whether the system has taken everything that was written; false once the connection has ended. */
  async taken(): Promise<boolean> {
    if (this.#socket.writableLength > 0) return this.#write('');
    // A write that fails at once leaves nothing that waits, and a connection that is only destroyed later.
    return !this.#socket.errored && !this.#socket.destroyed;
  }

  /** @param most bytes of one write. @returns as `taken` */
  async writeAll(bytes: Uint8Array, most: number): Promise<boolean> {
    for (let at = 0; at < bytes.length; at += most)
      if (!(await this.#write(bytes.subarray(at, at + most)))) return false;
    return true;
  }

  #write(bytes: Uint8Array | string): Promise<boolean> {
    return new Promise((resolve) => {
      if (this.#socket.destroyed) return resolve(false);
      this.#finish = resolve;
      this.#socket.write(bytes, (error) => resolve(!error && !this.#socket.destroyed));
    });
  }

  readonly #leave = (): void => this.#finish?.(false);
}
