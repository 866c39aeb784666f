import {collectDefaultMetrics, Registry} from 'prom-client';

let collected: Registry | undefined;

/**
 * CPU, memory, event loop and garbage collection of this process. They are the process's and not a server's, and their
 * collectors cannot be stopped, so all servers of one process share one set: see docs/decisions/0033.
 */
export function processMetrics(): Registry {
  if (!collected) {
    collected = new Registry();
    collectDefaultMetrics({register: collected});
  }
  return collected;
}
