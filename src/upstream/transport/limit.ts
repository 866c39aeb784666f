import type {UpstreamConfig} from '../../config.ts';
import type {Demand} from '../port.ts';
import type {Budget} from './budget.ts';

/** Limits how many requests of one kind are under way at once. Waiters are served in order. */
export interface Limit {
  /**
   * Waits for a slot.
   * @param demand whether anybody is waiting for this download; while nobody is, it is served after all others
   * @throws the signal's reason when it is aborted first; TooManyUnwanted
   */
  acquire(signal: AbortSignal, demand?: Demand): Promise<Slot>;
}

export interface Slot {
  /** Returns the slot. Idempotent. */
  release(): void;
  /**
   * Allows the slot to be taken back while nobody wants its download and a wanted one is waiting.
   * @param stop called once, when the slot is taken back; release the slot soon after
   */
  interruptible(stop: () => void): void;
}

/** As many unwanted downloads as there are slots are waiting already. */
export class TooManyUnwanted extends Error {
  override readonly name = 'TooManyUnwanted';
}

interface Waiter {
  readonly demand: Demand;
  serve(): void;
  refuse(error: Error): void;
}

interface SlotHolder {
  readonly demand: Demand;
  stop: (() => void) | undefined;
  stopped: boolean;
}

/** For a request that a client waits for, as nearly all are. */
const WANTED: Demand = {wanted: true, stopping: undefined, watch: () => () => {}};

const isWanted = ({demand}: {demand: Demand}): boolean => demand.wanted;

export const createLimit = (slots: number): Limit => new SlotLimit(slots);

class SlotLimit implements Limit {
  readonly #slots: number;
  #free: number;
  readonly #waiting = new Set<Waiter>();
  /** Holders whose downloads may become unwanted. */
  readonly #holders = new Set<SlotHolder>();

  constructor(slots: number) {
    this.#slots = slots;
    this.#free = slots;
  }

  async acquire(signal: AbortSignal, demand = WANTED): Promise<Slot> {
    if (signal.aborted) throw signal.reason;
    return this.#free > 0 ? this.#hold(demand) : this.#wait(signal, demand);
  }

  #hold(demand: Demand): Slot {
    this.#free--;
    const holder: SlotHolder = {demand, stop: undefined, stopped: false};
    if (demand !== WANTED) this.#holders.add(holder);
    const unwatch = demand.watch(() => this.#interrupt());
    let held = true;
    return {
      interruptible: (stop) => {
        holder.stop = stop;
        this.#interrupt();
      },
      release: () => {
        if (!held) return;
        held = false;
        unwatch();
        this.#holders.delete(holder);
        this.#free++;
        this.#serveNext();
      },
    };
  }

  #wait(signal: AbortSignal, demand: Demand): Promise<Slot> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(waiter);
        signal.removeEventListener('abort', giveUp);
        unwatch();
      };
      const waiter: Waiter = {
        demand,
        serve: () => {
          leave();
          resolve(this.#hold(demand));
        },
        refuse: (error) => {
          leave();
          reject(error);
        },
      };
      const giveUp = (): void => waiter.refuse(signal.reason);
      const unwatch = demand.watch(() => this.#review());
      signal.addEventListener('abort', giveUp, {once: true});
      this.#waiting.add(waiter);
      if (demand === WANTED) this.#interrupt();
      else this.#review();
    });
  }

  #serveNext(): void {
    if (this.#free === 0) return;
    const next = this.#waiting.values().find(isWanted) ?? this.#waiting.values().next().value;
    next?.serve();
  }

  #review(): void {
    this.#refuseSurplus();
    this.#interrupt();
  }

  /** Each waiting download holds an open file and memory, and clients that start downloads and leave decide how many. */
  #refuseSurplus(): void {
    const unwanted = [...this.#waiting].filter((waiter) => !isWanted(waiter));
    for (const waiter of unwanted.slice(this.#slots)) waiter.refuse(new TooManyUnwanted());
  }

  /** Takes back one slot of an unwanted download for each wanted waiter, minus those already being taken back. */
  #interrupt(): void {
    const candidates = [...this.#holders].filter(
      ({demand, stop, stopped}) => stop && !stopped && !demand.wanted,
    );
    if (candidates.length === 0) return;
    const stopping = [...this.#holders].filter(({stopped}) => stopped).length;
    const needed = Math.max(0, [...this.#waiting].filter(isWanted).length - stopping);
    for (const holder of candidates.slice(0, needed)) {
      holder.stopped = true;
      holder.stop?.();
    }
  }
}

/** The limits of one upstream. `bodies` are read as fast as they come, `streams` at a client's pace. */
export type SlotKind = 'heads' | 'manifests' | 'bodies' | 'streams' | 'uploads';

/** The setting behind each limit, for the failure of a request that got no slot. */
export const SETTINGS: Record<SlotKind, string> = {
  heads: 'upstream.concurrency.heads',
  manifests: 'upstream.concurrency.manifests',
  bodies: 'upstream.concurrency.bodies',
  streams: 'upstream.concurrency.bodies (half of them for what is streamed directly to clients)',
  uploads: 'upstream.concurrency.bodies',
};

export const createLimits = ({
  heads,
  manifests,
  bodies,
}: UpstreamConfig['concurrency']): Record<SlotKind, Limit> => ({
  heads: createLimit(heads),
  manifests: createLimit(manifests),
  bodies: createLimit(bodies),
  // A limit of their own, so that slow clients delay only each other.
  streams: createLimit(Math.max(1, Math.floor(bodies / 2))),
  // A limit of their own, so that pulls and pushes do not delay each other, and an upload never needs a second slot.
  uploads: createLimit(bodies),
});

/**
 * Waits for a slot within the budget of a call. While nobody wants the download, the budget does not run, and it waits
 * for as long as it takes.
 * @throws as `acquire`, with the reason of the budget's signal
 */
export async function slotFor(limit: Limit, budget: Budget, demand: Demand | undefined): Promise<Slot> {
  if (!demand) return limit.acquire(budget.signal);
  const onChange = (): void => (demand.wanted ? budget.restart() : budget.end());
  const unwatch = demand.watch(onChange);
  if (!demand.wanted) budget.end();
  try {
    return await limit.acquire(budget.signal, demand);
  } finally {
    unwatch();
    if (!demand.wanted) budget.restart();
  }
}
