import type {Clock} from '../../clock.ts';
import type {Tag} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import {createManifestPull} from '../pull/manifest.ts';
import type {TagLists} from '../tags/tag-lists.ts';
import type {WriteFence} from '../write-fence.ts';
import {createTagWalk} from './tag-walk.ts';

export interface IndexResult {
  /** Tags that the upstream lists. */
  tags: number;
  /** Tags whose manifest, with all that it leads to, is here now. */
  indexed: number;
  /** Manifests that were met, each once. */
  manifests: number;
  /** Those of them that refer to another manifest. */
  referrers: number;
  /** Requests made to the upstream, less retries and those for tokens. */
  requests: number;
  /** Everything that the tags lead to is here. */
  complete: boolean;
  /** Why the walk ended before it was complete; tags that failed by themselves do not end it. */
  stopped: string | undefined;
  /** The first tags that failed, with the reason of each. */
  failures: {tag: string; reason: string}[];
  /** Tags that failed, in all. */
  failed: number;
}

export interface IndexOptions {
  /** The most requests that may be made to the upstream; at least 1. */
  budget: number;
  /** Ends the walk between two requests. What was indexed until then stays. */
  signal: AbortSignal;
  /** Told after every tag. */
  progress(state: IndexResult): void;
}

/**
 * Walks the tags of an upstream's repository and brings in every manifest that they lead to, so that those with a
 * subject are found by their edges, also where no client ever wrote a fallback tag. Fallback tags are tags as well.
 */
export interface IndexRepository {
  /**
   * What is here costs no request: a tag that is fresh by its registry's policy, and manifests. Tags that were never
   * seen come first, so that one run after another reaches all of them, however small the budget.
   * @throws UpstreamFailure when the tags could not be listed; OciError NAME_UNKNOWN when there is no such
   * repository; the signal's reason
   */
  run(route: Route, options: IndexOptions): Promise<IndexResult>;
}

export interface IndexRepositoryParts {
  metadata: Metadata;
  writes: WriteFence;
  tagLists: Pick<TagLists, 'renew'>;
  clock: Clock;
}

/** Tags that are followed side by side. */
const CONCURRENCY = 4;
const MAX_FAILURES = 20;
const NOTHING = {
  tags: 0,
  indexed: 0,
  manifests: 0,
  referrers: 0,
  requests: 0,
  complete: false,
  stopped: undefined,
  failed: 0,
};
/** An upstream that fails in one of these ways will fail the next tag as well. */
const FINAL = new Set<UpstreamFailure['kind']>(['throttled', 'credentials', 'open']);

/** The end of the walk, for a reason that is told in its result. */
class Stop extends Error {}

export function createIndexRepository(parts: IndexRepositoryParts): IndexRepository {
  const {metadata, writes, tagLists, clock} = parts;
  // Of its own: its requests are neither shared with those of clients, nor followed by a prefetch.
  const pull = createManifestPull({metadata, writeFence: writes, clock, arrived: () => {}});

  return {
    async run(route, {budget, signal, progress}) {
      const result: IndexResult = {...NOTHING, failures: []};
      let stop: Stop | undefined;
      const spend = () => {
        signal.throwIfAborted();
        if (result.requests >= budget) stop ??= new Stop(`the budget of ${budget} requests is spent`);
        if (stop) throw stop;
        result.requests += 1;
      };
      const met = (record: ManifestRecord) => {
        result.manifests += 1;
        if (edgeOf(record)) result.referrers += 1;
      };
      const walk = createTagWalk({metadata, writes, tagLists, clock, pull, route, spend, met});

      const follow = async (tag: Tag): Promise<void> => {
        try {
          await walk.follow(tag);
          result.indexed += 1;
        } catch (error) {
          if (!(error instanceof UpstreamFailure)) throw error;
          if (FINAL.has(error.kind)) {
            stop ??= new Stop(error.message, {cause: error});
            throw stop;
          }
          result.failed += 1;
          if (result.failures.length < MAX_FAILURES) result.failures.push({tag, reason: error.message});
        }
        progress(structuredClone(result));
      };

      try {
        const tags = await walk.tags();
        result.tags = tags.length;
        const queue = tags.values();
        const work = async (): Promise<void> => {
          for (const tag of queue) await follow(tag);
        };
        await allEnded(Array.from({length: CONCURRENCY}, work));
      } catch (error) {
        if (!(error instanceof Stop)) throw error;
        result.stopped = error.message;
      }
      result.complete = result.stopped === undefined && result.failed === 0;
      return result;
    },
  };
}

/** As `Promise.all`, but nothing is under way any more when it rejects. */
async function allEnded(work: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(work);
  await Promise.all(work);
}
