import type {Workload} from './workload.ts';

/** What a cache did for its clients. */
export interface Figures {
  /** The share of pulls for which no upstream was asked for content. */
  completePulls: number;
  /** The share of the bytes that were here. */
  byteHits: number;
  /** Pulls whose manifest was here while one of its blobs had been evicted. */
  brokenPromises: number;
  /** The same shares, those pulls included that a scanner made. */
  withCrawl: {completePulls: number; byteHits: number};
}

interface Counts {
  pulls: number;
  complete: number;
  bytes: number;
  hitBytes: number;
}

const none = (): Counts => ({pulls: 0, complete: 0, bytes: 0, hitBytes: 0});

/** Counts hits and misses. */
export class Counter {
  readonly #clients = none();
  readonly #all = none();
  #brokenPromises = 0;

  /** @param bytes of everything that was asked for, and of what was here */
  count(pull: {
    isCrawl: boolean;
    bytes: number;
    hitBytes: number;
    isComplete: boolean;
    isBroken: boolean;
  }): void {
    for (const counts of pull.isCrawl ? [this.#all] : [this.#all, this.#clients]) {
      counts.pulls += 1;
      counts.complete += pull.isComplete ? 1 : 0;
      counts.bytes += pull.bytes;
      counts.hitBytes += pull.hitBytes;
    }
    if (pull.isBroken) this.#brokenPromises += 1;
  }

  figures(): Figures {
    return {...shares(this.#clients), brokenPromises: this.#brokenPromises, withCrawl: shares(this.#all)};
  }
}

const shares = ({pulls, complete, bytes, hitBytes}: Counts) => ({
  completePulls: complete / Math.max(1, pulls),
  byteHits: hitBytes / Math.max(1, bytes),
});

/** The bytes of everything that clients ask for in the whole workload, each content once. */
export function workingSet({sizes, images, pulls}: Workload): number {
  const asked = new Set<number>();
  for (const {image, blobs, isCrawl} of pulls) {
    if (isCrawl) continue;
    const manifest = images[image]?.manifest;
    if (manifest !== undefined) asked.add(manifest);
    for (const blob of blobs) asked.add(blob);
  }
  let bytes = 0;
  for (const content of asked) bytes += sizes[content] ?? 0;
  return bytes;
}
