import type {Clock} from '../clock.ts';

/**
 * Connections that have just arrived. Those that arrive in the same moment are all accepted before a request of any of them
 * is read: libuv accepts one connection in each turn of the event loop, and the answers of that turn delay the next one.
 */
export interface Arrivals<Connection> {
  /**
   * Begins to read it in the first turn in which nothing else arrives. After several, that has to last for more turns, the more of
   * them there are, and for a tenth of the time in which they arrived. None waits for more than two seconds.
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
/**
 * A pause may also come early, when only a few have arrived. So each waiting connection after the first one requires this many
 * more turns without an arrival. A turn without work takes a few microseconds.
 */
const QUIET_TURNS = 50;
const MAX_QUIET_TURNS = 10_000;

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
  /** Turns since the last one arrived, that of its arrival included. */
  #turns = 0;

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
    this.#turns = 0;
  }

  readonly #endTurn = (): void => {
    this.#turns += 1;
    if (this.#isWaiting()) return void setImmediate(this.#endTurn);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const connection of waiting) this.#begin(connection);
  };

  #isWaiting(): boolean {
    const now = this.#clock.monotonic();
    if (now - this.#first >= MAX_WAIT_MS) return false;
    const quiet = 1 + Math.min((this.#waiting.length - 1) * QUIET_TURNS, MAX_QUIET_TURNS);
    return this.#turns <= quiet || now - this.#last < (this.#last - this.#first) * PAUSE;
  }
}
