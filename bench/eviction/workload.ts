import {createRandom, type Random, zipfSums} from './random.ts';

/** What a registry has: contents are numbered, an image is a manifest with what it names. */
export interface Image {
  /** The number of its manifest as a content. */
  manifest: number;
  /** Config and layers. */
  blobs: Int32Array;
}

/** A client pulls an image: its manifest, and those of its blobs that the client does not have yet. */
export interface Pull {
  /** Minutes since the start. */
  at: number;
  image: number;
  blobs: Int32Array;
  /** By the scanner that walks through the catalogue. */
  isCrawl: boolean;
}

export interface Workload {
  /** Bytes, by content. */
  sizes: Float64Array;
  images: readonly Image[];
  pulls: readonly Pull[];
}

/** How large and how busy the simulated registry is. */
export interface Scale {
  seed: number;
  days: number;
  repositories: number;
  bases: number;
  /** By clients, on average. */
  pullsPerDay: number;
}

const DAY = 24 * 60;
const KB = 1000;
const MB = 1000 * KB;
const CRAWL_HOUR = 2;
/** How popular repositories, and the tags of one, are: Zipf's exponents. */
const REPOSITORY_SKEW = 1.05;
const TAG_SKEW = 1.2;
const BASE_SKEW = 1;

/** A tag of a repository, and the images that it named, oldest first. */
interface Line {
  base: number;
  images: {number: number; releasedAt: number}[];
  /** Minutes between two releases; infinite for one that never moves. */
  interval: number;
  /** Layers between the base and what each release changes. */
  middle: number[];
}

interface Repository {
  lines: Line[];
  lineSums: Float64Array;
  /** From when to when clients pull it. */
  from: number;
  until: number;
}

/**
 * A workload as the published traces of registries show it (FAST'18, "Improving Docker Registry Design based on Production
 * Workload Analysis"): most layers are small and a few are large, few repositories get most pulls, a pushed image is pulled
 * soon after, and a pull of a manifest brings pulls of its layers. Tags share layers, repositories share base images, tags
 * move on, and what was popular changes.
 * @param crawl whether a scanner pulls every image of the catalogue each night
 */
export const createWorkload = (scale: Scale, {crawl}: {crawl: boolean}): Workload =>
  new Simulation(scale).run(crawl);

class Simulation {
  readonly #scale: Scale;
  readonly #random: Random;
  readonly #sizes: number[] = [];
  readonly #images: Image[] = [];
  readonly #pulls: Pull[] = [];
  readonly #bases: number[][] = [];
  readonly #repositories: Repository[] = [];
  readonly #repositorySums: Float64Array;
  readonly #baseSums: Float64Array;

  constructor(scale: Scale) {
    this.#scale = scale;
    this.#random = createRandom(scale.seed);
    this.#repositorySums = zipfSums(scale.repositories, REPOSITORY_SKEW);
    this.#baseSums = zipfSums(scale.bases, BASE_SKEW);
  }

  run(crawl: boolean): Workload {
    for (let base = 0; base < this.#scale.bases; base++)
      this.#bases.push(this.#layers(1 + this.#random.below(4)));
    for (let number = 0; number < this.#scale.repositories; number++)
      this.#repositories.push(this.#repository());
    for (let day = 0; day < this.#scale.days; day++) {
      for (let base = 0; base < this.#scale.bases; base++) {
        if (this.#random.chance(1 / 14)) this.#bases[base] = this.#layers(1 + this.#random.below(4));
      }
      if (crawl) this.#crawl(day * DAY);
      this.#releases(day * DAY);
      this.#clients(day * DAY);
    }
    this.#pulls.sort((a, b) => a.at - b.at);
    return {sizes: Float64Array.from(this.#sizes), images: this.#images, pulls: this.#pulls};
  }

  /** 65 % are below 1 MB, 80 % below 10 MB. */
  #layer(): number {
    const kind = this.#random.fraction();
    const [low, high] = kind < 0.65 ? [KB, MB] : kind < 0.8 ? [MB, 10 * MB] : [10 * MB, 300 * MB];
    return this.#sizes.push(Math.round(low * (high / low) ** this.#random.fraction())) - 1;
  }

  #layers(count: number): number[] {
    return Array.from({length: count}, () => this.#layer());
  }

  #repository(): Repository {
    const {days} = this.#scale;
    const lines = Array.from({length: 1 + this.#random.below(5)}, () => this.#line());
    const isLasting = this.#random.chance(0.6);
    const from = isLasting ? 0 : this.#random.below(days) * DAY;
    const until = isLasting ? Number.POSITIVE_INFINITY : from + (3 + this.#random.below(25)) * DAY;
    return {lines, lineSums: zipfSums(lines.length, TAG_SKEW), from, until};
  }

  #line(): Line {
    // Some images are built every day, most now and then, some never again.
    const kind = this.#random.fraction();
    const days = kind < 0.2 ? 1 : kind < 0.7 ? 3 + this.#random.below(15) : Number.POSITIVE_INFINITY;
    const line: Line = {
      base: this.#random.weighted(this.#baseSums),
      images: [],
      interval: days * DAY,
      middle: this.#layers(1 + this.#random.below(4)),
    };
    this.#release(line, 0);
    return line;
  }

  /** A new image under the tag: its last layers are new, those below sometimes, its base is the current one. */
  #release(line: Line, at: number): void {
    if (this.#random.chance(0.3)) line.middle = this.#layers(1 + this.#random.below(4));
    const blobs = [
      this.#content(2 * KB + this.#random.below(6 * KB)),
      ...(this.#bases[line.base] ?? []),
      ...line.middle,
      ...this.#layers(1 + this.#random.below(3)),
    ];
    const manifest = this.#content(KB + this.#random.below(2 * KB));
    const number = this.#images.push({manifest, blobs: Int32Array.from(blobs)}) - 1;
    line.images.push({number, releasedAt: at});
  }

  #content(size: number): number {
    return this.#sizes.push(size) - 1;
  }

  #releases(start: number): void {
    for (const [place, {lines, from, until}] of this.#repositories.entries()) {
      if (start < from || start >= until) continue;
      for (const line of lines) {
        if (!this.#random.chance(DAY / line.interval)) continue;
        const at = start + 9 * 60 + this.#random.below(8 * 60);
        this.#release(line, at);
        // A pushed image is rolled out soon; a popular one to more clients.
        const nodes = 1 + this.#random.below(Math.ceil(30 / (1 + place / 20)));
        for (let node = 0; node < nodes; node++) this.#pull(line, at + this.#random.below(90));
      }
    }
  }

  #clients(start: number): void {
    const isWeekend = Math.floor(start / DAY) % 7 >= 5;
    const count = this.#scale.pullsPerDay * (isWeekend ? 0.5 : 1.2);
    for (let number = 0; number < count; number++) {
      const repository = this.#repositories[this.#random.weighted(this.#repositorySums)];
      if (!repository || start < repository.from || start >= repository.until) continue;
      const line = repository.lines[this.#random.weighted(repository.lineSums)];
      // Most work is done by day.
      const hour = this.#random.chance(0.7) ? 8 + 11 * this.#random.fraction() : 24 * this.#random.fraction();
      if (line) this.#pull(line, start + Math.floor(hour * 60));
    }
  }

  #pull(line: Line, at: number): void {
    // Some deployments stay on an earlier image for a while.
    const back = this.#random.chance(0.1) ? 1 + this.#random.below(3) : 0;
    const newest = line.images.findLastIndex(({releasedAt}) => releasedAt <= at);
    const place = Math.max(0, newest - back);
    const pulled = line.images[place]?.number ?? 0;
    const blobs = this.#missing(pulled, line.images[place - 1]?.number);
    this.#pulls.push({at, image: pulled, blobs, isCrawl: false});
  }

  /** A machine that is new has nothing; another one has the layers of the image before. */
  #missing(image: number, before: number | undefined): Int32Array {
    const blobs = this.#images[image]?.blobs ?? new Int32Array();
    const isNew = this.#random.chance(0.6);
    if (before === undefined || isNew) return blobs;
    const here = new Set(this.#images[before]?.blobs);
    return blobs.filter((blob) => !here.has(blob));
  }

  #crawl(start: number): void {
    let at = start + CRAWL_HOUR * 60;
    for (const {lines, from} of this.#repositories) {
      if (from > start) continue;
      for (const {images} of lines) {
        const image = images.at(-1)?.number ?? 0;
        this.#pulls.push({
          at: Math.floor(at),
          image,
          blobs: this.#images[image]?.blobs ?? new Int32Array(),
          isCrawl: true,
        });
        at += 0.05;
      }
    }
  }
}
