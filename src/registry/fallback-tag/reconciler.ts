import {setImmediate as nextTurn} from 'node:timers/promises';
import {ANONYMOUS, afterRequest, type Caller} from '../../caller.ts';
import {type Cancel, type Clock, NOT_NEEDED, sleep, waitAtMost} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {
  fullReference,
  type Metadata,
  type PendingTagChange,
  type RepositoryKey,
} from '../../storage/metadata.ts';
import {UpstreamFailure, type UpstreamWriter} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {Registries, Registry} from '../registries.ts';
import type {Reconcile, Reconciled} from './reconcile.ts';
import {pauseBefore} from './schedule.ts';

/**
 * Makes the fallback tags of upstreams get, and keep, the changes in the journal. It reconciles one subject at a time
 * with itself, each time for all changes that are in the journal by then, until none of them can be lost any more.
 */
export interface Reconciler {
  /** Takes over what earlier and other processes left in the journal, now and from time to time. */
  start(): void;
  /**
   * Resolves when the tag has been reconciled with what the journal holds now, or after two seconds.
   * @param caller whose login is used where the upstream takes the callers' own: for some minutes, and never stored
   */
  settle(route: Route, subject: Digest, caller: Caller): Promise<void>;
  /** Somebody else wrote the tag: it is checked again soon. @param caller as above */
  lookAgain(route: Route, subject: Digest, caller: Caller): void;
  /** Starts nothing more. Resolves when nothing is under way, or after a second. */
  close(): Promise<void>;
}

export interface ReconcilerParts {
  metadata: Metadata;
  reconcile: Reconcile;
  /** The registries as they are configured now. */
  registries(): Registries;
  clock: Clock;
  events: Events;
}

/** How long a client waits for the tag: the change is durable, and the referrer is already found here. */
const SETTLE_TIMEOUT_MS = 2000;
const CLOSE_TIMEOUT_MS = 1000;
/** Subjects that are reconciled at a time. */
const CONCURRENCY = 8;
/** How often the journal is searched for what other processes left. */
const SWEEP_INTERVAL_MS = 60_000;
/** The most entries of the journal that one sweep reads: the first sweep, and the later ones. */
const MAX_FIRST_SWEEP = 1_000_000;
const MAX_SWEEP = 10_000;
/** For so long a caller's own login is kept after its push. What is pending then waits for the next push to the subject. */
const LOGIN_LIFE_MS = 10 * 60_000;
/** Entries that are read before the event loop turns. */
const PAGE = 1000;

/** A subject whose tag has changes that are pending, or that may still be lost. */
interface Watch {
  readonly key: string;
  readonly repository: RepositoryKey;
  readonly subject: Digest;
  /** As whom the upstream is asked, and until when, on the monotonic clock. */
  caller: Caller;
  callerUntil: number;
  isRunning: boolean;
  /** It is to be reconciled again as soon as the current run ends. */
  runAgain: boolean;
  /** Resolves the clients that wait for the next run. */
  waiting: (() => void)[];
  pending: number;
  failures: number;
  /** Cancels the timer of the next run. */
  cancelTimer: Cancel | undefined;
}

export const createReconciler = (parts: ReconcilerParts): Reconciler => new TagReconciler(parts);

class TagReconciler implements Reconciler {
  readonly #parts: ReconcilerParts;
  readonly #watches = new Map<string, Watch>();
  /** The queue, in two parts: subjects that a client waits for go first. */
  readonly #urgent = new Set<Watch>();
  readonly #due = new Set<Watch>();
  readonly #running = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #pending = 0;
  /** The entry after which the next sweep continues; undefined where it begins at the start. */
  #sweptTo: PendingTagChange | undefined;

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
  }

  start(): void {
    // Rejects only when closed.
    this.#sweepUntilClosed().catch(() => {});
  }

  async settle(route: Route, subject: Digest, caller: Caller): Promise<void> {
    const watch = this.#watchFor(route, subject, caller);
    const {promise, resolve} = Promise.withResolvers<void>();
    watch.waiting.push(resolve);
    this.#enqueue(watch);
    await waitAtMost(SETTLE_TIMEOUT_MS, promise, this.#parts.clock);
  }

  lookAgain(route: Route, subject: Digest, caller: Caller): void {
    this.#enqueue(this.#watchFor(route, subject, caller));
  }

  async close(): Promise<void> {
    this.#closing.abort(NOT_NEEDED);
    for (const {cancelTimer, waiting} of this.#watches.values()) {
      cancelTimer?.();
      for (const resolve of waiting) resolve();
    }
    await waitAtMost(CLOSE_TIMEOUT_MS, Promise.allSettled(this.#running), this.#parts.clock);
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  #watchFor(route: Route, subject: Digest, caller: Caller): Watch {
    const watch = this.#watchOf(route.repository, subject);
    watch.caller = afterRequest(caller);
    watch.callerUntil = this.#parts.clock.monotonic() + LOGIN_LIFE_MS;
    return watch;
  }

  #watchOf(repository: RepositoryKey, subject: Digest): Watch {
    const key = fullReference(repository, subject);
    const known = this.#watches.get(key);
    if (known) return known;
    const fresh: Watch = {
      key,
      repository,
      subject,
      caller: ANONYMOUS,
      callerUntil: Number.NEGATIVE_INFINITY,
      isRunning: false,
      runAgain: false,
      waiting: [],
      pending: 0,
      failures: 0,
      cancelTimer: undefined,
    };
    this.#watches.set(key, fresh);
    return fresh;
  }

  #setPending(watch: Watch, count: number): void {
    if (watch.pending === count) return;
    this.#pending += count - watch.pending;
    watch.pending = count;
    this.#parts.events.emit('referrers.tag-pending', {changes: this.#pending});
  }

  #enqueue(watch: Watch): void {
    watch.cancelTimer?.();
    watch.cancelTimer = undefined;
    if (watch.isRunning) {
      watch.runAgain = true;
      return;
    }
    (watch.waiting.length > 0 ? this.#urgent : this.#due).add(watch);
    this.#startRuns();
  }

  #startRuns(): void {
    while (!this.#isClosed && this.#running.size < CONCURRENCY) {
      const next = this.#urgent.values().next().value ?? this.#due.values().next().value;
      if (!next) return;
      this.#urgent.delete(next);
      this.#due.delete(next);
      const run = this.#run(next).finally(() => {
        this.#running.delete(run);
        this.#startRuns();
      });
      this.#running.add(run);
    }
  }

  async #run(watch: Watch): Promise<void> {
    watch.isRunning = true;
    watch.runAgain = false;
    const waiting = watch.waiting.splice(0);
    let retryAfter: number | undefined;
    let result: Reconciled | undefined;
    try {
      result = await this.#reconcile(watch);
    } catch (error) {
      if (error instanceof UpstreamFailure) retryAfter = error.retryAfter;
      this.#report(error, watch);
    }
    watch.isRunning = false;
    this.#setPending(watch, result?.pending ?? Math.max(watch.pending, 1));
    watch.failures = watch.pending > 0 ? watch.failures + 1 : 0;
    for (const resolve of waiting) resolve();
    if (watch.runAgain) this.#enqueue(watch);
    else this.#schedule(watch, result, retryAfter);
  }

  #schedule(watch: Watch, result: Reconciled | undefined, retryAfter: number | undefined): void {
    const {clock} = this.#parts;
    const pause = pauseBefore({
      now: clock.now(),
      pending: watch.pending,
      writtenAt: result?.writtenAt ?? [],
      since: result?.since,
      failures: watch.failures,
      retryAfter,
    });
    if (pause === undefined) this.#watches.delete(watch.key);
    else if (!this.#isClosed) watch.cancelTimer = clock.after(pause, () => this.#enqueue(watch));
  }

  async #reconcile({repository, subject, caller, callerUntil}: Watch): Promise<Reconciled> {
    const target = this.#writableRegistry(repository);
    const hasExpired = target?.registry.approvals && callerUntil < this.#parts.clock.monotonic();
    // The configuration has changed since the push, or nobody can write now: the changes stay in the journal.
    if (!target || hasExpired) return {pending: 0, writtenAt: []};
    const {registry, writer} = target;
    const route = {registry, repository, asked: repository.name};
    return this.#parts.reconcile.run(route, writer, subject, caller);
  }

  /** The repository's registry as it is configured now, if pushes to it go through to the upstream. */
  #writableRegistry({
    registry: wanted,
    name,
  }: RepositoryKey): {registry: Registry; writer: UpstreamWriter} | undefined {
    const registry = this.#parts.registries().all.find((known) => known.name === wanted);
    if (!registry?.serves(name)) return undefined;
    return registry.push.mode === 'through' ? {registry, writer: registry.push.writer} : undefined;
  }

  /** No request waits for this work, so no line of a request reports its failure. */
  #report(error: unknown, {repository, subject}: Watch): void {
    if (!(error instanceof UpstreamFailure)) {
      this.#reportFault('update a fallback tag', error);
      return;
    }
    const {registry, name} = repository;
    const {kind, host, message: reason} = error;
    this.#parts.events.emit('referrers.tag-failed', {registry, name, host, subject, kind, reason});
  }

  #reportFault(task: string, error: unknown): void {
    if (!this.#isClosed) this.#parts.events.emit('background.failed', {task, error});
  }

  async #sweepUntilClosed(): Promise<void> {
    for (let limit = MAX_FIRST_SWEEP; ; ) {
      try {
        await this.#sweep(limit);
        limit = MAX_SWEEP;
      } catch (error) {
        this.#reportFault('read the journal of fallback tags', error);
      }
      await sleep(this.#parts.clock, SWEEP_INTERVAL_MS, this.#closing.signal);
    }
  }

  /** Continues where the last sweep ended, so that entries which stay pending for ever do not hide those behind them. */
  async #sweep(limit: number): Promise<void> {
    for (let read = 0; read < limit && !this.#isClosed; read += PAGE) {
      const entries = await this.#parts.metadata.pendingTagChanges(this.#sweptTo, PAGE);
      this.#takeOver(entries);
      this.#sweptTo = entries.length < PAGE ? undefined : entries.at(-1);
      if (!this.#sweptTo) return;
      await nextTurn();
    }
  }

  /** Skips subjects that are already watched: their state here is newer. */
  #takeOver(entries: readonly PendingTagChange[]): void {
    const found = new Map<Watch, number>();
    for (const {repository, subject, writtenAt} of entries) {
      const known = this.#watches.get(fullReference(repository, subject));
      const target = this.#writableRegistry(repository);
      // Where callers write with their own logins, this waits for the next push to the subject.
      if (!target || target.registry.approvals || (known && !found.has(known))) continue;
      const watch = known ?? this.#watchOf(repository, subject);
      found.set(watch, (found.get(watch) ?? 0) + (writtenAt === undefined ? 1 : 0));
    }
    for (const [watch, count] of found) this.#setPending(watch, count);
    for (const watch of found.keys()) this.#enqueue(watch);
  }
}
