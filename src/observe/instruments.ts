import {Counter, Gauge, Histogram, type Registry} from 'prom-client';

export type Instruments = ReturnType<typeof createInstruments>;

/** Makes the instruments of one registry; `backref_` goes before each name. */
export function createInstruments(registry: Registry) {
  const registers = [registry];
  return {
    counter: <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
      new Counter({name: `backref_${name}`, help, labelNames, registers}),
    gauge: <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
      new Gauge({name: `backref_${name}`, help, labelNames, registers}),
    histogram: <Label extends string>(
      name: string,
      help: string,
      labelNames: readonly Label[],
      buckets: number[],
    ) => new Histogram({name: `backref_${name}`, help, labelNames, buckets, registers}),
  };
}

/** Prometheus measures time in seconds. */
export const seconds = (ms: number): number => ms / 1000;

/** Of an upstream's response headers, in seconds. A request may include a download, so its buckets reach ten minutes. */
export const UPSTREAM_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];
