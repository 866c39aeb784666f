import type {TestFn} from 'ava';

/** What runs the given functions when it is over: a test, or all tests of a file. */
export interface Lifetime {
  teardown(end: () => unknown): void;
}

/**
 * For what the tests of a file may have in common, as none of them leaves a trace in it. It starts with the first test
 * that asks for it and ends after the last one; what is wrong at its end fails the file.
 */
export function shareAmongTests<T>(
  test: TestFn,
  start: (lifetime: Lifetime) => Promise<T>,
): () => Promise<T> {
  const ends: (() => unknown)[] = [];
  let started: Promise<T> | undefined;
  test.after.always('what the tests share is closed without an error', async () => {
    for (const end of ends.reverse()) await end();
  });
  return () => {
    started ??= start({teardown: (end) => void ends.push(end)});
    return started;
  };
}

/** What ends before its test does, as one run of a property. */
export function createRun(): Lifetime & {end(): Promise<void>} {
  const ends: (() => unknown)[] = [];
  return {
    teardown: (end) => void ends.push(end),
    async end() {
      for (const end of ends.reverse()) await end();
    },
  };
}
