/** A histogram in the text format of Prometheus, to which many equal values can be added at once. */
export interface CountedHistogram<Label extends string> {
  /** Adds a value `count` times. @param value in milliseconds */
  add(labels: Readonly<Record<Label, string>>, value: number, count: number): void;
  /** In seconds. */
  text(): string;
}

export interface HistogramOptions<Label extends string> {
  name: string;
  help: string;
  labelNames: readonly Label[];
  /** Upper bounds in seconds, the lowest first. */
  buckets: readonly number[];
}

/** Of equal labels. */
interface Series {
  readonly labels: string;
  /** For each bucket those values that are in no lower one, and at the end those that are in none. */
  readonly counts: number[];
  /** Milliseconds. */
  sum: number;
}

/** @param options whose label values need no escaping: they are names of the code */
export function createCountedHistogram<Label extends string>({
  name,
  help,
  labelNames,
  buckets,
}: HistogramOptions<Label>): CountedHistogram<Label> {
  const all = new Map<string, Series>();
  const seriesOf = (given: Readonly<Record<Label, string>>): Series => {
    const labels = labelNames.map((label) => `${label}="${given[label]}"`).join(',');
    const known = all.get(labels);
    if (known) return known;
    const series = {labels, counts: Array<number>(buckets.length + 1).fill(0), sum: 0};
    all.set(labels, series);
    return series;
  };
  return {
    add(labels, value, count) {
      const series = seriesOf(labels);
      const found = buckets.findIndex((bound) => value <= bound * 1000);
      const bucket = found === -1 ? buckets.length : found;
      series.counts[bucket] = (series.counts[bucket] ?? 0) + count;
      series.sum += value * count;
    },
    text() {
      const lines = [...all.values()].flatMap((series) => linesOf(name, buckets, series));
      return [`# HELP ${name} ${help}`, `# TYPE ${name} histogram`, ...lines, ''].join('\n');
    },
  };
}

function linesOf(name: string, buckets: readonly number[], {labels, counts, sum}: Series): string[] {
  let total = 0;
  const cumulative = counts.map((count) => {
    total += count;
    return total;
  });
  const bounds = [...buckets.map(String), '+Inf'];
  return [
    ...bounds.map((bound, index) => `${name}_bucket{le="${bound}",${labels}} ${cumulative[index]}`),
    `${name}_sum{${labels}} ${sum / 1000}`,
    `${name}_count{${labels}} ${total}`,
  ];
}
