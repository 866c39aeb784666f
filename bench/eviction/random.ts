/** Random numbers that are the same for the same seed. */
export interface Random {
  /** From 0 on, below 1. */
  fraction(): number;
  /** Whole, from 0 on, below `limit`. */
  below(limit: number): number;
  chance(probability: number): boolean;
  /** The place of a weight, each as probable as its weight says. @param sums the weights, each added to those before it */
  weighted(sums: Float64Array): number;
}

/** Mulberry32. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    fraction,
    below: (limit) => Math.floor(fraction() * limit),
    chance: (probability) => fraction() < probability,
    weighted(sums) {
      const wanted = fraction() * (sums.at(-1) ?? 0);
      let [low, high] = [0, sums.length - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((sums[middle] ?? 0) > wanted) high = middle;
        else low = middle + 1;
      }
      return low;
    },
  };
}

/** The cumulative weights of Zipf's law for this number of ranks. */
export function zipfSums(count: number, exponent: number): Float64Array {
  const sums = new Float64Array(count);
  let sum = 0;
  for (let place = 0; place < count; place++) {
    sum += (place + 1) ** -exponent;
    sums[place] = sum;
  }
  return sums;
}
