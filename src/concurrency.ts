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
    for (const [index, item] of queue) results[index] = await work(item);
  };
  const workers = Array.from({length: Math.min(concurrency, items.length)}, worker);
  await Promise.all(workers).catch((error: unknown) => {
    // Exhausts the shared iterator, so that the other workers get nothing more from it.
    queue.toArray();
    throw error;
  });
  return results;
}
