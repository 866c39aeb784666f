import type {Events} from '../events.ts';
import type {Digest} from '../oci/digest.ts';
import type {RepositoryName} from '../oci/name.ts';
import {ALWAYS, type CacheReport, type Steady} from './freshness.ts';
import type {Generation} from './generations.ts';
import type {Uses} from './uses.ts';

/**
 * That an answer may be given again, to whoever may have it, without asking for it again: between these times, while its
 * generations are current. Plain data, which another thread can use.
 */
export interface Repeat extends Steady {
  /** Of everything that it depends on. */
  readonly generations: readonly Generation[];
  /** What is reported each time that it is given; undefined for an answer without content of a repository. */
  readonly served: Served | undefined;
}

/** Content of a repository that was served from here. Plain data. */
export type Served = {readonly registry: string; readonly repository: RepositoryName} & (
  | {
      readonly kind: 'manifest';
      readonly digest: Digest /** Whether that counts as a use. */;
      readonly isUse: boolean;
    }
  | {readonly kind: 'blob'; readonly digest: Digest}
  | {readonly kind: 'referrers'}
);

/**
 * How an answer may be given again: one from what is here, that does not say otherwise by itself.
 * @param report of the answer
 * @param content its generations, and that of the rate limit which lifetimes depend on, taken before anything was read
 * @returns undefined where it may not
 */
export function repeatOf(
  {how, steady}: CacheReport,
  {content, quota}: TakenGenerations,
  served: Served,
): Repeat | undefined {
  if (how !== 'hit' || !steady) return undefined;
  return {...steady, generations: steady.lifespan && quota ? [...content, quota] : content, served};
}

interface TakenGenerations {
  readonly content: readonly Generation[];
  readonly quota?: Generation;
}

/** Of an answer that depends on nothing but what all answers depend on. */
export const ALWAYS_THE_SAME: Repeat = Object.freeze({...ALWAYS, generations: [], served: undefined});

/** Content that is served once more. */
export interface ServedAgain {
  /** Counts it as a use, if it was one when it was served first. */
  count(served: Served): void;
  /** Emits the event that was emitted then. */
  report(served: Served): void;
}

export const createServedAgain = ({
  events,
  uses,
}: {
  events: Events;
  uses: Pick<Uses, 'record'>;
}): ServedAgain => ({
  count(served) {
    if (served.kind !== 'manifest' || !served.isUse) return;
    const {registry, repository, digest} = served;
    uses.record({registry, name: repository}, digest);
  },

  report(served) {
    const {kind, registry, repository} = served;
    const facts = {registry, repository, outcome: 'hit' as const};
    switch (kind) {
      case 'manifest':
        events.emit('manifest.served', facts);
        return;
      case 'blob':
        events.emit('blob.served', {...facts, digest: served.digest});
        return;
      case 'referrers':
        events.emit('referrers.served', facts);
    }
  },
});
