import {setImmediate as nextTurn} from 'node:timers/promises';
import {type Cancel, type Clock, NOT_NEEDED, sleep, waitAtMost} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata, OwedTagChange, RepositoryKey} from '../../storage/metadata.ts';
import {UpstreamFailure, type UpstreamWriter} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {Registries, Registry} from '../registries.ts';
import type {RoundEnd, TagRounds} from './reconcile.ts';
import {pauseBefore} from './schedule.ts';

/**
 * Sees to it that the fallback tags of upstreams come to hold, and keep, what the journal says: the rounds of one
 * subject one after the other, each for everything that is owed to it by then, until none of it can be lost any more.
 */
export interface Reconciler {
  /** Takes up what an earlier process, or another one, left owed, now and from time to time. */
  start(): void;
  /** Resolves when a round has been made for what the journal holds now, or when the patience for it ends. */
  settle(route: Route, subject: Digest): Promise<void>;
  /** The tag was written by somebody else: it is looked at again soon. */
  lookAgain(route: Route, subject: Digest): void;
  /** Starts nothing more. Resolves when nothing is under way, or soon. */
  close(): Promise<void>;
}

export interface ReconcilerParts {
  metadata: Metadata;
  rounds: TagRounds;
  /** The registries as they are configured now. */
  registries(): Registries;
  clock: Clock;
  events: Events;
}

/** A client waits so long for the tag, milliseconds: what is owed is durable, and it is found here already. */
const PATIENCE = 2000;
/** Subjects whose rounds are under way side by side. */
const CONCURRENCY = 8;
/** What other processes left is looked for so often. */
const SWEEP = 60_000;
/** Entries of the journal that one sweep goes through at the most, the first one and those after it. */
const MAX_FIRST = 1_000_000;
const MAX_LATER = 10_000;
/** Entries that are read before others have their turn. */
const PAGE = 1000;
const GRACE = 1000;

/** A subject to whose tag something is owed, or was lately. */
interface Watch {
  readonly key: string;
  readonly repository: RepositoryKey;
  readonly subject: Digest;
  /** A round is under way. */
  running: boolean;
  /** It is to be followed by another one. */
  again: boolean;
  /** Clients that wait for the next round. */
  waiting: (() => void)[];
  owed: number;
  failures: number;
  /** Ends the wait for its next round. */
  wake: Cancel | undefined;
}

const keyOf = ({registry, name}: RepositoryKey, subject: Digest) => `${registry}/${name}@${subject}`;

export function createReconciler({metadata, rounds, registries, clock, events}: ReconcilerParts): Reconciler {
  const watches = new Map<string, Watch>();
  /** Whose turn it is: those that a client waits for first. */
  const urgent = new Set<Watch>();
  const due = new Set<Watch>();
  const working = new Set<Promise<void>>();
  const closing = new AbortController();
  let owed = 0;
  /** The entry behind which the next sweep goes on; undefined where it begins with the first. */
  let swept: OwedTagChange | undefined;

  function watchOf(repository: RepositoryKey, subject: Digest): Watch {
    const key = keyOf(repository, subject);
    const known = watches.get(key);
    if (known) return known;
    const fresh = {
      key,
      repository,
      subject,
      running: false,
      again: false,
      waiting: [],
      owed: 0,
      failures: 0,
      wake: undefined,
    };
    watches.set(key, fresh);
    return fresh;
  }

  function setOwed(watch: Watch, count: number): void {
    if (watch.owed === count) return;
    owed += count - watch.owed;
    watch.owed = count;
    events.emit('referrers.tag-owed', {changes: owed});
  }

  function enqueue(watch: Watch): void {
    watch.wake?.();
    watch.wake = undefined;
    if (watch.running) {
      watch.again = true;
      return;
    }
    (watch.waiting.length > 0 ? urgent : due).add(watch);
    startWork();
  }

  function startWork(): void {
    while (!closing.signal.aborted && working.size < CONCURRENCY) {
      const next = urgent.values().next().value ?? due.values().next().value;
      if (!next) return;
      urgent.delete(next);
      due.delete(next);
      const work = round(next).finally(() => {
        working.delete(work);
        startWork();
      });
      working.add(work);
    }
  }

  async function round(watch: Watch): Promise<void> {
    watch.running = true;
    watch.again = false;
    const waiting = watch.waiting.splice(0);
    let retryAfter: number | undefined;
    let end: RoundEnd | undefined;
    try {
      end = await attempt(watch);
    } catch (error) {
      if (error instanceof UpstreamFailure) retryAfter = error.retryAfter;
      tell(error, watch);
    }
    watch.running = false;
    setOwed(watch, end?.owed ?? Math.max(watch.owed, 1));
    watch.failures = watch.owed > 0 ? watch.failures + 1 : 0;
    for (const done of waiting) done();
    if (watch.again) return enqueue(watch);
    const {failures} = watch;
    const pause = pauseBefore({
      now: clock.now(),
      owed: watch.owed,
      writtenAt: end?.writtenAt ?? [],
      since: end?.since,
      failures,
      retryAfter,
    });
    if (pause === undefined) watches.delete(watch.key);
    else nap(watch, pause);
  }

  /** No request waits for it, and so no line of a request tells of it. */
  function tell(error: unknown, {repository, subject}: Watch): void {
    if (!(error instanceof UpstreamFailure)) return void failed('update a fallback tag', error);
    const {registry, name} = repository;
    const {kind, host, message: reason} = error;
    events.emit('referrers.tag-failed', {registry, name, host, subject, kind, reason});
  }

  function failed(task: string, error: unknown): void {
    if (!closing.signal.aborted) events.emit('background.failed', {task, error});
  }

  /** The registry as it is configured now, if pushes go through to its upstream. */
  function pushedThrough(name: string): {registry: Registry; writer: UpstreamWriter} | undefined {
    const registry = registries().all.find((known) => known.name === name);
    return registry?.push.mode === 'through' ? {registry, writer: registry.push.writer} : undefined;
  }

  async function attempt({repository, subject}: Watch): Promise<RoundEnd> {
    const through = pushedThrough(repository.registry);
    // Configured otherwise since: what is owed stays in the journal.
    if (!through) return {owed: 0, writtenAt: []};
    const {registry, writer} = through;
    return rounds.run({registry, repository, asked: repository.name}, writer, subject);
  }

  function nap(watch: Watch, ms: number): void {
    if (closing.signal.aborted) return;
    watch.wake = clock.after(ms, () => enqueue(watch));
  }

  /** Those that are watched already are known better here. */
  function takeUp(entries: readonly OwedTagChange[]): void {
    const found = new Map<Watch, number>();
    for (const {repository, subject, writtenAt} of entries) {
      const known = watches.get(keyOf(repository, subject));
      if (!pushedThrough(repository.registry) || (known && !found.has(known))) continue;
      const watch = known ?? watchOf(repository, subject);
      found.set(watch, (found.get(watch) ?? 0) + (writtenAt === undefined ? 1 : 0));
    }
    for (const [watch, count] of found) setOwed(watch, count);
    for (const watch of found.keys()) enqueue(watch);
  }

  /** From where the last one ended: what stays owed where nothing is pushed through any more hides nothing behind it. */
  async function sweep(most: number): Promise<void> {
    for (let read = 0; read < most && !closing.signal.aborted; read += PAGE) {
      const entries = await metadata.owedTagChanges(swept, PAGE);
      takeUp(entries);
      swept = entries.length < PAGE ? undefined : entries.at(-1);
      if (!swept) return;
      await nextTurn();
    }
  }

  async function sweepUntilClosed(): Promise<void> {
    for (let most = MAX_FIRST; ; ) {
      try {
        await sweep(most);
        most = MAX_LATER;
      } catch (error) {
        failed('read the journal of fallback tags', error);
      }
      await sleep(clock, SWEEP, closing.signal);
    }
  }

  return {
    start() {
      // Ends with the closing alone.
      sweepUntilClosed().catch(() => {});
    },

    async settle(route, subject) {
      const watch = watchOf(route.repository, subject);
      const {promise, resolve} = Promise.withResolvers<void>();
      watch.waiting.push(resolve);
      enqueue(watch);
      await waitAtMost(PATIENCE, promise, clock);
    },

    lookAgain: (route, subject) => enqueue(watchOf(route.repository, subject)),

    async close() {
      closing.abort(NOT_NEEDED);
      for (const {wake, waiting} of watches.values()) {
        wake?.();
        for (const done of waiting) done();
      }
      await Promise.race([Promise.allSettled(working), sleep(clock, GRACE)]);
    },
  };
}
