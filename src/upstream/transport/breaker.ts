import type {Clock} from '../../clock.ts';

export interface BreakerPolicy {
  /** Consecutive failures that open the circuit. */
  failures: number;
  /** Milliseconds that it stays open. */
  openFor: number;
}

/** What one request showed. `unknown`: it never reached the upstream. */
export type Reachability = 'reachable' | 'failing' | 'unknown';

/** How long to wait for the result of a probe before asking again. */
const PROBE_RETRY_MS = 1000;

type State =
  | {name: 'closed'; failures: number}
  | {name: 'open'; until: number}
  | {name: 'half-open'; probing: boolean};

/** A circuit breaker that lets exactly one probe through once it has been open for its time. */
export interface Breaker {
  /** Milliseconds until a request makes sense; undefined when one would be let through now. */
  retryAfter(): number | undefined;
  /** True when all requests are let through; false also for the one that would be the probe. */
  isClosed(): boolean;
  /**
   * Lets a request through. Call the returned function exactly once, with what the request showed.
   * @returns undefined when the circuit is open.
   */
  enter(): ((reachability: Reachability) => void) | undefined;
  /** Resolves when it is decided whether a closed circuit opens; undefined when nothing is being decided. */
  confirming(): Promise<void> | undefined;
}

/**
 * @param confirm asked before the circuit opens or opens again: is the whole host failing, and not only single requests?
 * Must not throw. A closed circuit lets requests through until it resolves. Without it, the circuit opens at once.
 */
export const createBreaker = (
  policy: BreakerPolicy,
  clock: Clock,
  onChange: (state: 'open' | 'half-open' | 'closed') => void,
  confirm?: () => Promise<boolean>,
): Breaker => new CircuitBreaker(policy, clock, onChange, confirm);

class CircuitBreaker implements Breaker {
  readonly #policy: BreakerPolicy;
  readonly #clock: Clock;
  readonly #onChange: (state: 'open' | 'half-open' | 'closed') => void;
  readonly #confirm: (() => Promise<boolean>) | undefined;
  #state: State = {name: 'closed', failures: 0};
  #confirmation: Promise<void> | undefined;

  constructor(
    policy: BreakerPolicy,
    clock: Clock,
    onChange: (state: 'open' | 'half-open' | 'closed') => void,
    confirm: (() => Promise<boolean>) | undefined,
  ) {
    this.#policy = policy;
    this.#clock = clock;
    this.#onChange = onChange;
    this.#confirm = confirm;
  }

  retryAfter(): number | undefined {
    const state = this.#state;
    if (state.name === 'open' && this.#clock.monotonic() < state.until)
      return state.until - this.#clock.monotonic();
    return state.name === 'half-open' && state.probing ? PROBE_RETRY_MS : undefined;
  }

  isClosed(): boolean {
    return this.#state.name === 'closed';
  }

  confirming(): Promise<void> | undefined {
    return this.#confirmation;
  }

  enter(): ((reachability: Reachability) => void) | undefined {
    if (this.retryAfter() !== undefined) return undefined;
    if (this.#state.name === 'closed') return (reachability) => this.#count(reachability);
    this.#become({name: 'half-open', probing: true});
    return (reachability) => this.#settleProbe(reachability);
  }

  #become(next: State): void {
    const changed = next.name !== this.#state.name;
    this.#state = next;
    if (changed) this.#onChange(next.name);
  }

  #open(): void {
    this.#become({name: 'open', until: this.#clock.monotonic() + this.#policy.openFor});
  }

  #count(reachability: Reachability): void {
    // A request that was let through before the circuit opened shows nothing about the time after.
    if (this.#state.name !== 'closed' || reachability === 'unknown') return;
    const failures = reachability === 'failing' ? this.#state.failures + 1 : 0;
    this.#state = {name: 'closed', failures};
    if (failures < this.#policy.failures) return;
    if (this.#confirm) this.#confirmation ??= this.#openOnceConfirmed(this.#confirm);
    else this.#open();
  }

  /** A success during the confirmation keeps the circuit closed, whatever the confirmation says. */
  async #openOnceConfirmed(confirm: () => Promise<boolean>): Promise<void> {
    const confirmed = await confirm();
    this.#confirmation = undefined;
    if (this.#state.name !== 'closed') return;
    if (confirmed && this.#state.failures >= this.#policy.failures) this.#open();
    else this.#state = {name: 'closed', failures: 0};
  }

  #settleProbe(reachability: Reachability): void {
    if (reachability === 'reachable') this.#become({name: 'closed', failures: 0});
    else if (reachability === 'unknown') this.#become({name: 'half-open', probing: false});
    else if (this.#confirm) void this.#reopenOnceConfirmed(this.#confirm);
    else this.#open();
  }

  /** Nothing waits for this: other requests are refused meanwhile, as during any probe. */
  async #reopenOnceConfirmed(confirm: () => Promise<boolean>): Promise<void> {
    if (await confirm()) this.#open();
    else this.#become({name: 'closed', failures: 0});
  }
}
