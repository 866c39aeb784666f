import type {Clock} from '../../clock.ts';

export interface BreakerPolicy {
  /** The circuit opens after so many failures in a row. */
  failures: number;
  /** Milliseconds that it stays open. */
  openFor: number;
}

/** What one admitted request showed. `unknown`: it never reached the upstream, so it shows nothing. */
export type Finding = 'reachable' | 'failing' | 'unknown';

/** Milliseconds after which it makes sense to ask again while a probe is under way. */
const PROBE_PATIENCE = 1000;

type State =
  | {name: 'closed'; failures: number}
  | {name: 'open'; until: number}
  | {name: 'half-open'; probing: boolean};

/** A circuit breaker that lets exactly one probe through once its time is over. */
export interface Breaker {
  /** Milliseconds until asking makes sense; undefined when a request would be let through now. */
  closedFor(): number | undefined;
  /** True when requests are let through freely; false also for the one that would be the probe. */
  steady(): boolean;
  /**
   * Lets a request through. Report its finding exactly once.
   * @returns undefined when the circuit is open.
   */
  enter(): ((finding: Finding) => void) | undefined;
  /** Resolves when it is decided whether a closed circuit opens; undefined when that is not in question. */
  confirming(): Promise<void> | undefined;
}

/**
 * @param confirm asked before the circuit opens, and before it opens again: are the failures more than those of single
 * requests? Must not throw. A closed circuit lets requests through until it has answered; without it, the circuit opens
 * at once.
 */
export function createBreaker(
  policy: BreakerPolicy,
  clock: Clock,
  onChange: (state: 'open' | 'half-open' | 'closed') => void,
  confirm?: () => Promise<boolean>,
): Breaker {
  let state: State = {name: 'closed', failures: 0};
  let confirmation: Promise<void> | undefined;
  const become = (next: State): void => {
    const changed = next.name !== state.name;
    state = next;
    if (changed) onChange(next.name);
  };
  const open = (): void => become({name: 'open', until: clock.monotonic() + policy.openFor});

  const closedFor = (): number | undefined => {
    if (state.name === 'open' && clock.monotonic() < state.until) return state.until - clock.monotonic();
    return state.name === 'half-open' && state.probing ? PROBE_PATIENCE : undefined;
  };

  /** A success meanwhile says as much as the confirmation. */
  const openOnceConfirmed = async (ask: () => Promise<boolean>): Promise<void> => {
    const confirmed = await ask();
    confirmation = undefined;
    if (state.name !== 'closed') return;
    if (confirmed && state.failures >= policy.failures) open();
    else state = {name: 'closed', failures: 0};
  };

  // A request that was let through before the circuit opened says nothing about the time after.
  const settle = (finding: Finding): void => {
    if (state.name !== 'closed' || finding === 'unknown') return;
    const failures = finding === 'failing' ? state.failures + 1 : 0;
    state = {name: 'closed', failures};
    if (failures < policy.failures) return;
    if (confirm) confirmation ??= openOnceConfirmed(confirm);
    else open();
  };
  /** Nobody waits for it: the others are refused meanwhile, as they are during any probe. */
  const reopenOnceConfirmed = async (ask: () => Promise<boolean>): Promise<void> => {
    if (await ask()) open();
    else become({name: 'closed', failures: 0});
  };
  const settleProbe = (finding: Finding): void => {
    if (finding === 'reachable') become({name: 'closed', failures: 0});
    else if (finding === 'unknown') become({name: 'half-open', probing: false});
    else if (confirm) void reopenOnceConfirmed(confirm);
    else open();
  };

  return {
    closedFor,
    steady: () => state.name === 'closed',
    confirming: () => confirmation,
    enter() {
      if (closedFor() !== undefined) return undefined;
      if (state.name === 'closed') return settle;
      become({name: 'half-open', probing: true});
      return settleProbe;
    },
  };
}
