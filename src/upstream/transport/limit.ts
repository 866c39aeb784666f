import type {Demand} from '../port.ts';
import type {Budget} from './budget.ts';

/** Bounds how many of something are under way at once; those who wait are served in their order. */
export interface Limit {
  /**
   * Waits for a slot.
   * @param demand of a download: while nobody wants it, it is served after everybody else
   * @throws the signal's reason when it is aborted first; TooManyUnwanted
   */
  acquire(signal: AbortSignal, demand?: Demand): Promise<Slot>;
}

export interface Slot {
  /** Gives the slot back. Idempotent. */
  release(): void;
  /**
   * Lets the slot be asked back while nobody wants the download that has it and a wanted one waits.
   * @param stop called once, when the slot is asked back; the slot is to be released soon
   */
  interruptible(stop: () => void): void;
}

/** As many unwanted downloads wait already as there are slots. */
export class TooManyUnwanted extends Error {
  override readonly name = 'TooManyUnwanted';
}

interface Waiter {
  readonly demand: Demand;
  serve(): void;
  refuse(error: Error): void;
}

interface Holder {
  readonly demand: Demand;
  stop: (() => void) | undefined;
  stopped: boolean;
}

/** Of a request that a client waits for, as nearly all are. */
const WANTED: Demand = {wanted: true, stopping: undefined, watch: () => () => {}};

const isWanted = ({demand}: {demand: Demand}): boolean => demand.wanted;

export function createLimit(slots: number): Limit {
  let free = slots;
  const waiting = new Set<Waiter>();
  /** Downloads that may become unwanted. */
  const holders = new Set<Holder>();

  function serveNext(): void {
    if (free === 0) return;
    const next = waiting.values().find(isWanted) ?? waiting.values().next().value;
    next?.serve();
  }

  /** Asks back as many slots of unwanted downloads as wanted ones wait for, less those that were asked back before. */
  function interrupt(): void {
    const candidates = [...holders].filter(({demand, stop, stopped}) => stop && !stopped && !demand.wanted);
    if (candidates.length === 0) return;
    const asked = [...holders].filter(({stopped}) => stopped).length;
    const needed = Math.max(0, [...waiting].filter(isWanted).length - asked);
    for (const holder of candidates.slice(0, needed)) {
      holder.stopped = true;
      holder.stop?.();
    }
  }

  /** Each that waits keeps a file open and bytes in memory: who starts downloads and leaves decides how many. */
  function refuseSurplus(): void {
    const unwanted = [...waiting].filter((waiter) => !isWanted(waiter));
    for (const waiter of unwanted.slice(slots)) waiter.refuse(new TooManyUnwanted());
  }

  function review(): void {
    refuseSurplus();
    interrupt();
  }

  function hold(demand: Demand): Slot {
    free--;
    const holder: Holder = {demand, stop: undefined, stopped: false};
    if (demand !== WANTED) holders.add(holder);
    const unwatch = demand.watch(interrupt);
    let held = true;
    return {
      interruptible(stop) {
        holder.stop = stop;
        interrupt();
      },
      release() {
        if (!held) return;
        held = false;
        unwatch();
        holders.delete(holder);
        free++;
        serveNext();
      },
    };
  }

  function wait(signal: AbortSignal, demand: Demand): Promise<Slot> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        waiting.delete(waiter);
        signal.removeEventListener('abort', giveUp);
        unwatch();
      };
      const waiter: Waiter = {
        demand,
        serve() {
          leave();
          resolve(hold(demand));
        },
        refuse(error) {
          leave();
          reject(error);
        },
      };
      const giveUp = (): void => waiter.refuse(signal.reason);
      const unwatch = demand.watch(review);
      signal.addEventListener('abort', giveUp, {once: true});
      waiting.add(waiter);
      if (demand === WANTED) interrupt();
      else review();
    });
  }

  return {
    async acquire(signal, demand = WANTED) {
      if (signal.aborted) throw signal.reason;
      return free > 0 ? hold(demand) : wait(signal, demand);
    },
  };
}

/**
 * Waits for a slot within the budget of a call. While nobody wants a download its time does not run: it waits for its
 * turn for as long as that takes.
 * @throws as `acquire`, with the reason of the budget's signal
 */
export async function slotFor(limit: Limit, budget: Budget, demand: Demand | undefined): Promise<Slot> {
  if (!demand) return limit.acquire(budget.signal);
  const count = (): void => (demand.wanted ? budget.restart() : budget.end());
  const unwatch = demand.watch(count);
  if (!demand.wanted) budget.end();
  try {
    return await limit.acquire(budget.signal, demand);
  } finally {
    unwatch();
    if (!demand.wanted) budget.restart();
  }
}
