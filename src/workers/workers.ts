import type {Cancel, Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {HeaderSettings, WorkerSetup} from './messages.ts';
import {startWorker, type Worker, type WorkerParts} from './worker.ts';

/** The workers of one server. */
export interface Workers {
  /** Starts them. Resolves when all listen. @throws what keeps one from that */
  start(count: number, setup: WorkerSetup): Promise<void>;
  /** Puts other limits of header fields in force. */
  replaceHeaders(headers: HeaderSettings): void;
  /** What is at this path may be another file now, or none. */
  forget(path: string): void;
  /** Resolves when everything is reported that has happened in them until now, or soon in any case. */
  report(): Promise<void>;
  /** Lets their connections end within `grace` milliseconds, then cuts the rest. */
  close(grace: number): Promise<void>;
}

export type WorkersParts = Pick<WorkerParts, 'listener' | 'happened' | 'runs'> & {
  /** The program of their threads; default the one that is beside this file. */
  program: URL | undefined;
  clock: Clock;
  events: Events;
};

/** In the package, it is beside the one script that everything else is in. */
const PROGRAM = new URL(`./worker-thread${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);

/** How long a worker may take to report. */
const MAX_REPORT_MS = 500;
/** When a worker that has ended is replaced: at first, and at most, each time twice as late as the time before. */
const FIRST_RESTART_MS = 100;
const MAX_RESTART_MS = 30_000;
/** A worker that has run for so long is replaced as the first one is. */
const STEADY_MS = 60_000;

export const createWorkers = (parts: WorkersParts): Workers => new RunningWorkers(parts);

class RunningWorkers implements Workers {
  readonly #parts: WorkersParts;
  readonly #workers = new Set<Worker>();
  readonly #restarts = new Set<Cancel>();
  #setup: WorkerSetup | undefined;
  #isClosing = false;

  constructor(parts: WorkersParts) {
    this.#parts = parts;
  }

  async start(count: number, setup: WorkerSetup): Promise<void> {
    if (this.#isClosing) return;
    this.#setup = setup;
    await Promise.all(Array.from({length: count}, () => this.#start(setup, FIRST_RESTART_MS)));
  }

  replaceHeaders(headers: HeaderSettings): void {
    if (this.#setup) this.#setup = {...this.#setup, headers};
    for (const worker of this.#workers) worker.tell({type: 'headers', headers});
  }

  forget(path: string): void {
    for (const worker of this.#workers) worker.tell({type: 'forget', path});
  }

  async report(): Promise<void> {
    await this.#within(MAX_REPORT_MS, (worker) => worker.report());
  }

  async close(grace: number): Promise<void> {
    this.#isClosing = true;
    for (const cancel of this.#restarts) cancel();
    await this.#within(grace, (worker) => worker.stop());
    await this.#within(MAX_REPORT_MS, (worker) => worker.cut());
    await Promise.all([...this.#workers].map((worker) => worker.terminate()));
  }

  /**
   * Resolves when it listens.
   * @param restartMs how long after its end it is replaced
   * @throws what keeps it from that; it is replaced all the same
   */
  async #start(setup: WorkerSetup, restartMs: number): Promise<void> {
    const {clock} = this.#parts;
    const worker = this.#create(setup, restartMs);
    const began = clock.monotonic();
    this.#workers.add(worker);
    void worker.ended.then((reason) => {
      this.#workers.delete(worker);
      if (reason === undefined || this.#isClosing) return;
      const isSteady = clock.monotonic() - began >= STEADY_MS;
      this.#restart(reason, isSteady ? FIRST_RESTART_MS : restartMs);
    });
    await worker.ready;
  }

  #create(setup: WorkerSetup, restartMs: number): Worker {
    const {program = PROGRAM, listener, happened, runs} = this.#parts;
    try {
      return startWorker({program, setup, listener, happened, runs});
    } catch (error) {
      // The system may have no memory for a thread now.
      this.#restart(error instanceof Error ? error.message : String(error), restartMs);
      throw error;
    }
  }

  #restart(reason: string, ms: number): void {
    const {clock, events} = this.#parts;
    events.emit('worker.ended', {reason, ms});
    const cancel = clock.after(ms, () => {
      this.#restarts.delete(cancel);
      this.#startAgain(Math.min(2 * ms, MAX_RESTART_MS));
    });
    this.#restarts.add(cancel);
  }

  #startAgain(restartMs: number): void {
    if (!this.#setup || this.#isClosing) return;
    // What keeps it from listening has been reported, and it is replaced again.
    this.#start(this.#setup, restartMs).catch(() => {});
  }

  /** Resolves when all workers are done, or after `ms` milliseconds. */
  async #within(ms: number, work: (worker: Worker) => Promise<void>): Promise<void> {
    const {promise: over, resolve: end} = Promise.withResolvers<void>();
    const cancel = this.#parts.clock.after(ms, end);
    await Promise.race([over, Promise.all([...this.#workers].map(work))]);
    cancel();
  }
}
