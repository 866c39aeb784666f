import type {Clock} from '../clock.ts';

/**
 * Connections that have just arrived. Those that arrive in the same moment are all accepted before a request of any of them
 * is read: libuv accepts one connection in each turn of the event loop, and the answers of that turn delay the next one.
 */
export interface Arrivals<Connection> {
  /**
   * Begins to read it in the first turn in which nothing else arrives. After many, that has to last for a tenth of the time
   * in which they arrived. None waits for more than two seconds.
   */
  add(connection: Connection): void;
}

/**
 * How long the first of many waits for the others. Only where they arrive faster than a turn takes does anybody wait for more
 * than a few turns, and what keeps the turns short shortens the wait of those that are not accepted yet.
 */
const MAX_WAIT_MS = 2000;
/** Clients that begin together have pauses between them, as when their system runs something else. */
const PAUSE = 1 / 10;

/** @param begin reads a connection */
export const createArrivals = <Connection>(
  begin: (connection: Connection) => void,
  clock: Pick<Clock, 'monotonic'>,
): Arrivals<Connection> => new WaitingArrivals(begin, clock);

class WaitingArrivals<Connection> implements Arrivals<Connection> {
  readonly #begin: (connection: Connection) => void;
  readonly #clock: Pick<Clock, 'monotonic'>;
  #waiting: Connection[] = [];
  /** When the first and the last one of them arrived. */
  #first = 0;
  #last = 0;
  /** Whether one of them has arrived in this turn. */
  #hasMore = false;

  constructor(begin: (connection: Connection) => void, clock: Pick<Clock, 'monotonic'>) {
    this.#begin = begin;
    this.#clock = clock;
  }

  add(connection: Connection): void {
    this.#last = this.#clock.monotonic();
    if (this.#waiting.length === 0) {
      this.#first = this.#last;
      setImmediate(this.#endTurn);
    }
    this.#waiting.push(connection);
    this.#hasMore = true;
  }

  readonly #endTurn = (): void => {
    const hasMore = this.#hasMore;
    this.#hasMore = false;
    if (this.#isWaiting(hasMore)) return void setImmediate(this.#endTurn);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const connection of waiting) this.#begin(connection);
  };

  #isWaiting(hasMore: boolean): boolean {
    const now = this.#clock.monotonic();
    if (now - this.#first >= MAX_WAIT_MS) return false;
    return hasMore || now - this.#last < (this.#last - this.#first) * PAUSE;
  }
}
