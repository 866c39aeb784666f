import {fractionOf} from './random.ts';

/** How a request to an upstream can be spoiled. */
export const SPOILS = [
  'reset before the answer',
  'reset in the body',
  'truncated body',
  'wrong bytes',
  'HTML page with 200',
  'status 500',
  'status 503',
  'status 429 with Retry-After',
  'late answer',
  'silence',
] as const;
export type Spoil = (typeof SPOILS)[number];

/** Those that the target for cold images is about. */
export const BAD_ANSWERS: readonly Spoil[] = [
  'reset before the answer',
  'reset in the body',
  'truncated body',
  'wrong bytes',
  'HTML page with 200',
  'status 500',
  'status 503',
];

export interface SpoilPlan {
  /** From 0 to 1. */
  share: number;
  kinds: readonly Spoil[];
  seed: string;
}

/** Decides for each request whether and how it is spoiled. */
export interface Spoiling {
  next(request: string): Spoil | undefined;
}

/** The decision follows from the seed, the request and how often it came before, however requests interleave. */
export function createSpoiling({share, kinds, seed}: SpoilPlan): Spoiling {
  const seen = new Map<string, number>();
  return {
    next(request) {
      const count = (seen.get(request) ?? 0) + 1;
      seen.set(request, count);
      const drawn = `${seed} ${request} ${count}`;
      if (fractionOf(drawn) >= share) return undefined;
      return kinds[Math.floor(fractionOf(`${drawn} kind`) * kinds.length)];
    },
  };
}
