import type {CreatedRobot, RobotList, RobotRequest, RobotStatus, Robots} from '../identity/robots.ts';
import type {Digest} from '../oci/digest.ts';
import type {Backup, BackupOptions, BackupResult} from '../registry/maintenance/backup.ts';
import type {DiskUsage, UsageOptions, UsageReport} from '../registry/maintenance/disk-usage.ts';
import type {Garbage, GarbageOptions, GarbageResult} from '../registry/maintenance/garbage.ts';
import type {ImageRemoval, RemovalOptions, RemovalResult} from '../registry/maintenance/image-removal.ts';
import type {Ingest, IngestRequest} from '../registry/maintenance/ingest.ts';
import type {InventoryTask} from '../registry/maintenance/inventory-progress.ts';
import type {PinList, PinOptions, PinResult, Pins, UnpinResult} from '../registry/maintenance/pins.ts';
import type {Ready, ReadyOptions, ReadyResult} from '../registry/maintenance/ready.ts';
import type {Restore, RestoreOptions, RestoreResult} from '../registry/maintenance/restore.ts';
import type {Verify, VerifyOptions, VerifyResult} from '../registry/maintenance/verify.ts';
import type {Warm, WarmOptions, WarmResult} from '../registry/maintenance/warm.ts';
import {routeOf} from '../registry/namespace.ts';
import type {Pulls, WhoResult} from '../registry/pulls.ts';
import type {IndexOptions, IndexRepository, IndexResult} from '../registry/referrers/index-repository.ts';
import type {Reindex, ReindexOptions, ReindexResult} from '../registry/referrers/rebuild.ts';
import type {Registries} from '../registry/registries.ts';

export interface IndexCommandOptions extends IndexOptions {
  /** The client's name for it: `library/alpine`, `ghcr.io/org/app`. */
  repository: string;
}

/** How a long command is interrupted and reports its progress. */
export interface CommandTask<State> {
  signal: AbortSignal;
  progress(state: State): void;
}

/** An operator's commands on a store, in this process or over the local socket of the server that uses the store. */
export interface Commands {
  /** Rebuilds the index of referrers from the stored manifests. @throws the signal's reason */
  reindex(options: ReindexOptions): Promise<ReindexResult>;
  /**
   * Walks the tags of an upstream's repository and indexes what they point at.
   * @throws OciError for a name that is malformed or belongs to no configured registry; UpstreamFailure; the signal's reason
   */
  index(options: IndexCommandOptions): Promise<IndexResult>;
  /** Collects unreferenced content. @throws the signal's reason */
  collect(options: GarbageOptions): Promise<GarbageResult>;
  /** Hashes everything that is stored. @throws as `Verify.run` */
  verify(options: VerifyOptions): Promise<VerifyResult>;
  /** Finds out which images survive an outage of their upstreams. @throws as `Ready.run` */
  ready(options: ReadyOptions): Promise<ReadyResult>;
  /** Fetches images before anybody pulls them. @throws as `Warm.run` */
  warm(options: WarmOptions): Promise<WarmResult>;
  /** What the disk is used for. @throws as `DiskUsage.run` */
  usage(options: UsageOptions): Promise<UsageReport>;
  /** Evicts images. @throws as `ImageRemoval.run` */
  remove(options: RemovalOptions): Promise<RemovalResult>;
  /** Keeps images from being evicted. @throws as `Pins.add` */
  pin(options: PinOptions): Promise<PinResult>;
  /** Ends that. @throws as `Pins.remove` */
  unpin(options: PinOptions): Promise<UnpinResult>;
  /** What is pinned. @throws as `Pins.list` */
  pins(task: InventoryTask): Promise<PinList>;
  /** Who pulled a manifest or a blob. */
  who(options: {digest: Digest}): Promise<WhoResult>;
  /** Makes a token for a machine. @throws Error that says what is wrong with the request */
  createRobot(request: RobotRequest): Promise<CreatedRobot>;
  robots(): Promise<RobotList>;
  /** @throws Error for an unknown name */
  revokeRobot(options: {name: string}): Promise<RobotStatus>;
  /** Copies what was pushed here into a folder. @throws Error that says what is wrong; the signal's reason */
  backup(options: BackupOptions): Promise<BackupResult>;
  /** Brings a backup's content into this store. @throws Error that says what is wrong; the signal's reason */
  restore(options: RestoreOptions): Promise<RestoreResult>;
  /** Puts content into a repository. @throws OciError DIGEST_INVALID when content does not have its digest */
  ingest(request: IngestRequest): Promise<void>;
}

export interface CommandsParts {
  reindex: Reindex;
  indexRepository: IndexRepository;
  garbage: Garbage;
  verify: Verify;
  ready: Ready;
  warm: Warm;
  usage: DiskUsage;
  removal: ImageRemoval;
  pins: Pins;
  pulls: Pulls;
  robots: Robots;
  backup: Backup;
  restore: Restore;
  ingest: Ingest;
  /** The registries as they are configured now. */
  registries: () => Registries;
}

/** The commands on the parts of this process. */
export const createCommands = ({
  reindex,
  indexRepository,
  garbage,
  verify,
  ready,
  warm,
  usage,
  removal,
  pins,
  pulls,
  robots,
  backup,
  restore,
  ingest,
  registries,
}: CommandsParts): Commands => ({
  reindex: (options) => reindex.run(options),
  async index({repository, ...options}) {
    const route = routeOf(registries(), {name: repository, ns: undefined, host: undefined});
    return indexRepository.run(route, options);
  },
  collect: (options) => garbage.run(options),
  verify: (options) => verify.run(options),
  ready: (options) => ready.run(options),
  warm: (options) => warm.run(options),
  usage: (options) => usage.run(options),
  remove: (options) => removal.run(options),
  pin: (options) => pins.add(options),
  unpin: (options) => pins.remove(options),
  pins: (task) => pins.list(task),
  who: ({digest}) => pulls.of(digest),
  createRobot: (request) => robots.create(request),
  robots: () => robots.list(),
  revokeRobot: ({name}) => robots.revoke(name),
  backup: (options) => backup.run(options),
  restore: (options) => restore.run(options),
  ingest: (request) => ingest.run(request),
});
