/**
 * Does the same for every item, for at most `atOnce` of them at a time.
 * @returns the results in the order of the items.
 * @throws the first failure; what has begun by then comes to its end, nothing new begins.
 */
export async function sideBySide<Item, Result>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const queue = items.entries();
  const walk = async (): Promise<void> => {
    for (const [index, item] of queue) results[index] = await work(item);
  };
  const walks = Array.from({length: Math.min(atOnce, items.length)}, walk);
  await Promise.all(walks).catch((error: unknown) => {
    // An iterator that is run to its end gives nothing more to the others.
    queue.toArray();
    throw error;
  });
  return results;
}
