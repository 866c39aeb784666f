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
