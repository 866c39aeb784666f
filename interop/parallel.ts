/** Runs all jobs, at most `limit` at once. @throws what the first failing job threw, when those under way have ended. */
export async function inParallel(limit: number, jobs: readonly (() => Promise<void>)[]): Promise<void> {
  const waiting = jobs.values();
  const worker = async () => {
    for (const job of waiting) await job();
  };
  const workers = await Promise.allSettled(Array.from({length: limit}, worker));
  for (const worker of workers) if (worker.status === 'rejected') throw worker.reason;
}
