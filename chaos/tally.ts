/** The promises that a run checks. Each violation belongs to one. */
export const PROMISES = [
  'wrong bytes',
  'lost pushes',
  'deletions undone',
  'falsely empty or short lists',
  'failures reported as absence',
  'content served without permission',
  'broken promises',
  'unavailable without a reason',
  'answers that no failure explains',
  'damage that was not injected',
  'leaked files and descriptors',
  'ends of the process',
  'stalled requests',
  'downloads that start over',
] as const;
export type Promised = (typeof PROMISES)[number];

export interface Violation {
  promise: Promised;
  text: string;
  /** The number and name of the step in which it was found. */
  step: string;
}

/** What a run counts. */
export interface Tally {
  readonly violations: readonly Violation[];
  readonly counts: ReadonlyMap<string, number>;
  /** The injected faults, by kind. */
  readonly faults: ReadonlyMap<string, number>;
  fault(kind: string): void;
  count(name: string, by?: number): void;
  of(name: string): number;
  violate(promise: Promised, text: string): void;
  /** Names the step that runs now. */
  enter(step: string): void;
  readonly steps: readonly string[];
}

/** @param report is called with each violation when it is found. */
export function createTally(report: (violation: Violation) => void): Tally {
  const violations: Violation[] = [];
  const counts = new Map<string, number>();
  const faults = new Map<string, number>();
  const steps: string[] = [];
  return {
    violations,
    counts,
    faults,
    fault: (kind) => void faults.set(kind, (faults.get(kind) ?? 0) + 1),
    steps,
    count: (name, by = 1) => void counts.set(name, (counts.get(name) ?? 0) + by),
    of: (name) => counts.get(name) ?? 0,
    violate(promise, text) {
      const violation = {promise, text, step: steps.at(-1) ?? 'the start'};
      violations.push(violation);
      report(violation);
    },
    enter: (step) => void steps.push(step),
  };
}
