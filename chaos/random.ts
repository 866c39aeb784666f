import {createHash} from 'node:crypto';

/** Numbers that follow from a seed alone, the same in each run. */
export interface Random {
  /** From 0 up to and without 1. */
  fraction(): number;
  /** From `low` to `high`, both included. */
  integer(low: number, high: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** One of the items. @throws Error when there are none */
  pick<T>(items: readonly T[]): T;
  /** A generator of its own, so that what one piece of work draws does not change what another one draws. */
  fork(name: string): Random;
}

/** A fraction that follows from a text alone. */
export const fractionOf = (text: string): number =>
  createHash('sha256').update(text).digest().readUInt32LE(0) / 2 ** 32;

/** @param seed any text */
export function createRandom(seed: string): Random {
  let drawn = 0;
  const fraction = () => fractionOf(`${seed}/${drawn++}`);
  const integer = (low: number, high: number) => low + Math.floor(fraction() * (high - low + 1));
  return {
    fraction,
    integer,
    chance: (probability) => fraction() < probability,
    pick(items) {
      const item = items[integer(0, items.length - 1)];
      if (item === undefined) throw new Error('there is nothing to pick from');
      return item;
    },
    fork: (name) => createRandom(`${seed}/${name}`),
  };
}
