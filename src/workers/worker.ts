import {Worker as Thread} from 'node:worker_threads';
import type {PreparedAnswer} from '../http/answer-table.ts';
import type {FileRun, FileRuns} from '../http/file-runs.ts';
import type {Listener} from '../http/listener.ts';
import type {ConnectionNews, Happening, ToOwner, ToWorker, WorkerSetup} from './messages.ts';
import {RemoteSocket} from './remote-socket.ts';

/** A worker, as the owner sees it. */
export interface Worker {
  /** Resolves when it listens. @throws what kept it from that */
  readonly ready: Promise<void>;
  /** Resolves when its thread has ended, with the reason where nobody had asked for that. */
  readonly ended: Promise<string | undefined>;
  tell(message: ToWorker): void;
  /** Resolves when everything is reported that has happened in it until now, or when it has ended. */
  report(): Promise<void>;
  /** Lets its connections end; resolves when they have. */
  stop(): Promise<void>;
  /** Ends its connections; resolves when they have, and everything is reported. */
  cut(): Promise<void>;
  /** Ends the thread, with all of its connections. */
  terminate(): Promise<void>;
}

export interface WorkerParts {
  /** The thread's program, `worker-thread`. */
  program: URL;
  setup: WorkerSetup;
  /** The owner's listener of this number. */
  listener(number: number): Listener;
  happened(happening: Happening): void;
  /** Decides about answers from files, and counts them. */
  runs: FileRuns;
}

export const startWorker = (parts: WorkerParts): Worker => new ThreadWorker(parts);

/** One of its connections. */
interface Adopted {
  readonly socket: RemoteSocket;
  readonly listener: Listener;
  /** Whether node's HTTP server reads it. */
  isServed: boolean;
}

class ThreadWorker implements Worker {
  readonly #parts: WorkerParts;
  readonly #thread: Thread;
  readonly #adopted = new Map<number, Adopted>();
  /** The answers that it gives from files, by its own numbers. */
  readonly #runs = new Map<number, FileRun>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #stopped = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<string | undefined>();
  #reports: (() => void)[] = [];
  #failure: string | undefined;
  #isListening = false;
  #isEnding = false;

  constructor(parts: WorkerParts) {
    this.#parts = parts;
    this.#thread = new Thread(parts.program, {workerData: parts.setup, name: 'worker'});
    this.#thread.on('message', (message: ToOwner) => this.#hear(message));
    this.#thread.on('error', (error: unknown) => {
      this.#failure = error instanceof Error ? error.message : String(error);
    });
    this.#thread.on('exit', (code) => this.#end(code));
    // Whoever asks learns of it; nobody has to.
    this.#ready.promise.catch(() => {});
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get ended(): Promise<string | undefined> {
    return this.#ended.promise;
  }

  tell(message: ToWorker): void {
    this.#thread.postMessage(message);
  }

  report(): Promise<void> {
    if (this.#isEnding) return Promise.resolve();
    return new Promise((resolve) => {
      this.#reports.push(resolve);
      this.tell({type: 'report'});
    });
  }

  stop(): Promise<void> {
    this.#isEnding = true;
    // One that is still starting would listen after the others have stopped.
    if (!this.#isListening) return this.terminate();
    this.tell({type: 'stop'});
    return this.#stopped.promise;
  }

  cut(): Promise<void> {
    this.tell({type: 'cut'});
    return this.#stopped.promise;
  }

  async terminate(): Promise<void> {
    this.#isEnding = true;
    await this.#thread.terminate();
  }

  #hear(message: ToOwner): void {
    switch (message.type) {
      case 'listening':
        this.#isListening = true;
        this.#ready.resolve();
        return;
      case 'happened':
        for (const happening of message.happenings) this.#parts.happened(happening);
        return;
      case 'reported':
        this.#reports.shift()?.();
        return;
      case 'stopped':
        this.#stopped.resolve();
        return;
      case 'connected':
        this.#adopt(message);
        return;
      case 'begin':
        this.#beginRun(message);
        return;
      case 'end':
        this.#runs.get(message.run)?.end(message.end);
        this.#runs.delete(message.run);
        return;
      default:
        this.#serve(message);
    }
  }

  #adopt({id, listener: number, address}: Extract<ConnectionNews, {type: 'connected'}>): void {
    const listener = this.#parts.listener(number);
    const socket = new RemoteSocket(address, {
      command: (order, owned = []) => this.#thread.postMessage({...order, id}, owned),
      keep: (key, answer) => this.#keep(key, answer),
    });
    this.#adopted.set(id, {socket, listener, isServed: false});
    const isAdmitted = listener.adopt(socket);
    this.tell({type: isAdmitted ? 'admitted' : 'refused', id});
  }

  #serve(news: Exclude<ConnectionNews, {type: 'connected'}>): void {
    const adopted = this.#adopted.get(news.id);
    if (!adopted) return;
    const {socket, listener} = adopted;
    switch (news.type) {
      case 'certified':
        listener.certify(socket, news.certificate);
        return;
      case 'data':
        this.#begin(adopted);
        socket.received(news.bytes);
        return;
      case 'ended':
        this.#begin(adopted);
        socket.ended();
        return;
      case 'written':
        socket.written();
        return;
      case 'opened':
        socket.opened();
        return;
      case 'late':
        listener.refuseLate(socket);
        return;
      case 'closed':
        this.#adopted.delete(news.id);
        socket.closedBy(failureOf(news.code));
    }
  }

  #beginRun({run: number, request}: Extract<ToOwner, {type: 'begin'}>): void {
    const run = this.#parts.runs.begin(request);
    if (run) this.#runs.set(number, run);
    this.tell({type: 'begun', run: number, id: run?.id});
  }

  #keep(key: string, answer: PreparedAnswer): void {
    const body = answer.body && Buffer.from(new Uint8Array(answer.body).buffer);
    const message: ToWorker = {type: 'keep', key, answer: {...answer, body}};
    this.#thread.postMessage(message, body ? [body.buffer] : []);
  }

  #begin(adopted: Adopted): void {
    if (adopted.isServed) return;
    adopted.isServed = true;
    adopted.listener.serve(adopted.socket);
  }

  #end(code: number): void {
    const reason = this.#failure ?? `its thread ended with code ${code}`;
    this.#ready.reject(new Error(reason));
    this.#stopped.resolve();
    for (const resolve of this.#reports) resolve();
    for (const {socket} of this.#adopted.values()) socket.closedBy(undefined);
    this.#adopted.clear();
    for (const run of this.#runs.values()) run.end({bytes: 0, isWhole: false, reason: undefined});
    this.#runs.clear();
    this.#ended.resolve(this.#isEnding ? undefined : reason);
    this.#isEnding = true;
  }
}

const failureOf = (code: string | undefined): Error | undefined =>
  code === undefined ? undefined : Object.assign(new Error(code), {code});
