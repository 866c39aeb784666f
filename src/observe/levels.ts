import {collectDefaultMetrics, Gauge, Registry} from 'prom-client';

/** What a server can be asked for at any time. Sizes in bytes. */
export interface Levels {
  version: string;
  /** Downloads that run now. */
  fillsInFlight(): number;
  storedBytes(): Promise<number>;
  freeBytes(): Promise<number>;
}

/** Figures that are read when they are asked for, and not counted from events. */
export function registerLevels(
  registry: Registry,
  {version, fillsInFlight, storedBytes, freeBytes}: Levels,
): void {
  const registers = [registry];
  new Gauge({
    name: 'backref_build_info',
    help: 'Always 1; its labels say what runs.',
    labelNames: ['version', 'node'] as const,
    registers,
  }).set({version, node: process.versions.node}, 1);
  new Gauge({
    name: 'backref_fills_in_flight',
    help: 'Downloads that run now.',
    registers,
    collect() {
      this.set(fillsInFlight());
    },
  });
  const measured = (name: string, help: string, measure: () => Promise<number>) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        try {
          this.set(await measure());
        } catch {
          // A disk that does not answer, e.g. one that is not mounted, has no figure; 0 would be a wrong one.
          this.remove();
        }
      },
    });
  measured('backref_stored_bytes', 'Bytes of stored blobs; counted once a minute.', storedBytes);
  measured('backref_free_bytes', 'Bytes left on the file system of the blobs.', freeBytes);
}

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
