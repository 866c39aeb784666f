/**
 * Runs `work` on every item, on at most `concurrency` of them at a time.
 * @returns the results in the order of the items
 * @throws the first failure; work that has begun by then is not interrupted, but nothing new begins
 */
export async function mapConcurrently<Item, Result>(
  items: readonly Item[],
  concurrency: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const queue = items.entries();
  const worker = async (): Promise<void> => {
    try {
      for (const [index, item] of queue) results[index] = await work(item);
    } catch (error) {
      // Exhausts the iterator that all workers share, so that no other one begins an item.
      queue.toArray();
      throw error;
    }
  };
  await Promise.all(Array.from({length: Math.min(concurrency, items.length)}, worker));
  return results;
}

/** Runs some of the work that it is given at the same time. The rest waits, in the order in which it came. */
export interface WorkQueue {
  /** How much waits. */
  readonly waiting: number;
  /** @returns the result of `work` @throws its failure */
  run<T>(work: () => Promise<T>): Promise<T>;
}

export function createWorkQueue(concurrency: number): WorkQueue {
  let running = 0;
  const waiting: (() => void)[] = [];
  return {
    get waiting() {
      return waiting.length;
    },
    async run(work) {
      if (running < concurrency) running += 1;
      else await new Promise<void>((resolve) => void waiting.push(resolve));
      try {
        return await work();
      } finally {
        const begin = waiting.shift();
        if (begin) begin();
        else running -= 1;
      }
    },
  };
}
