import {collectDefaultMetrics, Gauge, Registry} from 'prom-client';

/** The metrics that are read on each scrape, instead of counted from events. Sizes in bytes. */
export interface GaugeSources {
  version: string;
  /** Downloads in progress. */
  fillsInFlight(): number;
  storedBytes(): Promise<number>;
  freeBytes(): Promise<number>;
}

export function registerGauges(
  registry: Registry,
  {version, fillsInFlight, storedBytes, freeBytes}: GaugeSources,
): void {
  const registers = [registry];
  new Gauge({
    name: 'backref_build_info',
    help: 'Always 1; the labels name the versions.',
    labelNames: ['version', 'node'] as const,
    registers,
  }).set({version, node: process.versions.node}, 1);
  new Gauge({
    name: 'backref_fills_in_flight',
    help: 'Downloads of blobs in progress.',
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
          // An unmounted disk has no number of bytes, and 0 would be wrong.
          this.remove();
        }
      },
    });
  measured('backref_stored_bytes', 'Bytes of stored blobs, counted once a minute.', storedBytes);
  measured('backref_free_bytes', 'Free bytes on the file system of the blobs.', freeBytes);
}

let collected: Registry | undefined;

/**
 * CPU, memory, event loop and garbage collection of this process. All servers in a process share them, since their
 * collectors cannot be stopped: see docs/decisions/0033.
 */
export function processMetrics(): Registry {
  if (!collected) {
    collected = new Registry();
    collectDefaultMetrics({register: collected});
  }
  return collected;
}
