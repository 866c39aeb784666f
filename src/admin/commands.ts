import type {Garbage, GarbageOptions, GarbageResult} from '../registry/maintenance/garbage.ts';
import type {Deposit, Ingest} from '../registry/maintenance/ingest.ts';
import {routeOf} from '../registry/namespace.ts';
import type {IndexOptions, IndexRepository, IndexResult} from '../registry/referrers/index-repository.ts';
import type {Reindex, ReindexOptions, ReindexResult} from '../registry/referrers/rebuild.ts';
import type {Registries} from '../registry/registries.ts';

export interface IndexWish extends IndexOptions {
  /** As a client names it: `library/alpine`, `ghcr.io/org/app`. */
  repository: string;
}

/** What an operator's commands do to a store: in this process, or over the local socket of the server that has it. */
export interface Commands {
  /** Rebuilds the index of referrers from the stored manifests. @throws the signal's reason */
  reindex(options: ReindexOptions): Promise<ReindexResult>;
  /**
   * Walks the tags of an upstream's repository and indexes what they lead to.
   * @throws OciError for a name that is malformed, or of no configured registry; UpstreamFailure; the signal's reason
   */
  index(wish: IndexWish): Promise<IndexResult>;
  /** Collects what nothing refers to. @throws the signal's reason */
  collect(options: GarbageOptions): Promise<GarbageResult>;
  /** Puts content into a repository. @throws OciError DIGEST_INVALID when bytes are not what a digest says */
  deposit(deposit: Deposit): Promise<void>;
}

export interface CommandsParts {
  reindex: Reindex;
  indexRepository: IndexRepository;
  garbage: Garbage;
  ingest: Ingest;
  /** The configuration of the moment. */
  registries: () => Registries;
}

/** The commands on the parts of this process. */
export const createCommands = ({
  reindex,
  indexRepository,
  garbage,
  ingest,
  registries,
}: CommandsParts): Commands => ({
  reindex: (options) => reindex.run(options),
  async index({repository, ...options}) {
    const route = routeOf(registries(), {name: repository, ns: undefined, host: undefined});
    return indexRepository.run(route, options);
  },
  collect: (options) => garbage.run(options),
  deposit: (deposit) => ingest.make(deposit),
});
