import {readdir, readFile} from 'node:fs/promises';

/** What the process of the server uses at one moment. */
export interface Sample {
  /** Seconds since the load began. */
  second: number;
  /** Resident memory in bytes. */
  resident: number;
  /** Bytes of the heap that are in use, garbage included. */
  heap: number;
  /** Open files and sockets. */
  descriptors: number;
}

/** @param url of the server, for its metrics */
export async function takeSample(pid: number, url: string, second: number): Promise<Sample> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const [, kibibytes] = /^VmRSS:\s+(\d+) kB$/m.exec(status) ?? [];
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const [, heap] = /^nodejs_heap_size_used_bytes (\S+)$/m.exec(metrics) ?? [];
  return {
    second,
    resident: Number(kibibytes) * 1024,
    heap: Number(heap),
    descriptors: (await readdir(`/proc/${pid}/fd`)).length,
  };
}

export interface Trend {
  what: string;
  /** Of the second and of the last third of the run. */
  middle: number;
  last: number;
  /** What the last third may reach. */
  limit: number;
}

const MIB = 2 ** 20;

/**
 * Compares the last third of the samples with the second; the first third fills the caches. Memory by its median, and the
 * heap by its lowest value, since garbage comes and goes; descriptors by their highest.
 */
export function trendsOf(samples: readonly Sample[]): Trend[] {
  const third = Math.floor(samples.length / 3);
  const [middle, last] = [samples.slice(third, 2 * third), samples.slice(2 * third)];
  const trend = (
    what: string,
    figure: (samples: readonly Sample[]) => number,
    limitOf: (middle: number) => number,
  ): Trend => ({what, middle: figure(middle), last: figure(last), limit: limitOf(figure(middle))});
  return [
    trend(
      'resident memory, median',
      (part) => median(part.map(({resident}) => resident)),
      (bytes) => 1.1 * bytes + 8 * MIB,
    ),
    trend(
      'heap in use, lowest',
      (part) => Math.min(...part.map(({heap}) => heap)),
      (bytes) => 1.1 * bytes + 4 * MIB,
    ),
    trend(
      'descriptors, highest',
      (part) => Math.max(...part.map(({descriptors}) => descriptors)),
      (count) => 1.1 * count + 16,
    ),
  ];
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
