import type {Clock} from '../../clock.ts';
import {isRefusedByDisk} from '../../error-code.ts';
import {algorithmOf, createDigester, type Digest} from '../../oci/digest.ts';
import {readManifest} from '../../oci/manifest.ts';
import type {Tag} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import {createUploadId} from '../../oci/upload.ts';
import type {BackupContents, BackupFolder, BackupManifest} from '../../storage/backup-folder.ts';
import type {Coordination} from '../../storage/coordination.ts';
import {DiskFull, type Metadata, type PendingTagChange} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import type {Memory} from '../memory.ts';
import type {Registries} from '../registries.ts';
import {manifestPut} from '../stored-manifest.ts';
import type {Tags} from '../tags/tags.ts';
import {type BackupSource, createBackupSource, type NeededBlob, WRONG} from './backup-source.ts';
import {claimCollection} from './garbage.ts';

/** What a restore brought. What was here already is not counted. */
export interface RestoreResult {
  manifests: number;
  tags: number;
  blobs: number;
  /** Bytes of those blobs. */
  bytes: number;
  /** Tags that were left as they are here, where they point at something else. */
  keptTags: number;
}

export interface RestoreProgress extends RestoreResult {
  /** The fraction of the blobs' bytes that is restored, 0 to 1. */
  done: number;
}

export interface RestoreOptions {
  /** Absolute path of the backup. */
  folder: string;
  /** Ends the restore. What was restored by then stays. */
  signal: AbortSignal;
  progress(state: RestoreProgress): void;
}

/** Brings a backup's content into this store. What is here stays. */
export interface Restore {
  /**
   * The blobs first, each verified; then manifests and tags. A blob that is here is verified as well, and replaced when it
   * is damaged. Garbage is not collected meanwhile.
   * @throws the signal's reason; StoreMissing; Error for a backup that is incomplete, damaged, or of a registry that is not
   * configured. Then no manifest and no tag was restored.
   */
  run(options: RestoreOptions): Promise<RestoreResult>;
}

export interface RestoreParts {
  metadata: Metadata;
  spools: Spools;
  lifecycle: BlobLifecycle;
  tags: Pick<Tags, 'write'>;
  memory: Pick<Memory, 'keepManifest'>;
  registries(): Registries;
  /** Opens the folder of a backup by its absolute path. */
  backupFolder(path: string): BackupFolder;
  /** Bytes left on the disk of the blobs. */
  freeBytes(): Promise<number>;
  coordination: Coordination;
  clock: Clock;
}

/** How much is copied between two reports of progress. */
const REPORT_EVERY_BYTES = 16 * 1024 * 1024;
export const createRestore = (parts: RestoreParts): Restore => ({
  async run(options) {
    // Blobs are restored before the manifests that name them.
    const claim = await claimCollection(parts.coordination, options.signal);
    try {
      options.signal.throwIfAborted();
      return await new RestoreRun(parts, options).run();
    } finally {
      await claim.release();
    }
  },
});

class RestoreRun {
  readonly #parts: RestoreParts;
  readonly #options: RestoreOptions;
  readonly #source: BackupSource;
  readonly #result: RestoreResult = {manifests: 0, tags: 0, blobs: 0, bytes: 0, keptTags: 0};
  /** Bytes of all blobs, and of those that are done. */
  #total = 0;
  #done = 0;
  #reported = 0;

  constructor(parts: RestoreParts, options: RestoreOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#source = createBackupSource(parts.backupFolder(options.folder));
  }

  async run(): Promise<RestoreResult> {
    const {signal} = this.#options;
    const contents = await this.#source.contents();
    this.#expectRegistries(contents);
    const blobs = await this.#source.blobs(contents, signal);
    await this.#expectSpace(blobs);
    for (const [digest, blob] of blobs) await this.#restoreBlob(digest, blob);
    this.#source.expectSound();
    for (const manifest of contents.manifests) {
      signal.throwIfAborted();
      await this.#restoreManifest(manifest);
    }
    for (const change of contents.tagChanges) await this.#restoreTagChange(change);
    return this.#result;
  }

  #expectRegistries({manifests, tagChanges}: BackupContents): void {
    const configured = new Set(this.#parts.registries().all.map(({name}) => name));
    const unknown = new Set(
      [...manifests, ...tagChanges]
        .map(({repository: {registry}}) => registry)
        .filter((registry) => !configured.has(registry)),
    );
    if (unknown.size === 0) return;
    throw new Error(
      `The backup has content of registries that are not configured here: ${[...unknown].join(', ')}. Add them to "registries" and run this again.`,
    );
  }

  async #expectSpace(blobs: ReadonlyMap<Digest, NeededBlob>): Promise<void> {
    const {metadata, freeBytes} = this.#parts;
    let needed = 0;
    for (const [digest, {size}] of blobs) {
      this.#total += size;
      if (!(await metadata.blob(digest))) needed += size;
    }
    const free = await freeBytes();
    if (needed <= free) return;
    throw new Error(
      `There is no space for the backup: its blobs need ${needed} bytes, ${free} are free. Nothing was restored.`,
    );
  }

  async #restoreBlob(digest: Digest, blob: NeededBlob): Promise<void> {
    const {metadata, lifecycle, clock} = this.#parts;
    this.#options.signal.throwIfAborted();
    const links = (size: number) =>
      [...blob.repositories.values()].map((repository) => ({
        type: 'blob.link' as const,
        repository,
        digest,
        size,
        origin: 'local' as const,
        at: clock.now(),
      }));
    const pace = async () => this.#options.signal.throwIfAborted();
    const {state} = await lifecycle.check(digest, {pace});
    if (state !== 'sound') await this.#copyBlob(digest, links(blob.size));
    else {
      await metadata.commit(links(blob.size));
      this.#advance(blob.size);
    }
  }

  async #copyBlob(digest: Digest, links: Parameters<BlobLifecycle['publish']>[2]): Promise<void> {
    const {spools, lifecycle} = this.#parts;
    const spool = await spools.open(createUploadId());
    try {
      const digester = createDigester(algorithmOf(digest));
      for await (const chunk of this.#source.open(digest)) {
        this.#options.signal.throwIfAborted();
        digester.update(chunk);
        await spool.append(chunk);
        this.#advance(chunk.length);
      }
      if (digester.digest() !== digest) return this.#source.fault(digest, WRONG);
      const {size} = spool;
      await lifecycle.publish(digest, spool, links);
      this.#result.blobs += 1;
      this.#result.bytes += size;
    } catch (error) {
      throw isFull(error) ? diskFull(error) : error;
    } finally {
      await spool.discard();
    }
  }

  #advance(bytes: number): void {
    this.#done += bytes;
    if (this.#done - this.#reported < REPORT_EVERY_BYTES && this.#done < this.#total) return;
    this.#reported = this.#done;
    const done = this.#total === 0 ? 1 : Math.min(1, this.#done / this.#total);
    this.#options.progress({...this.#result, done});
  }

  async #restoreManifest(manifest: BackupManifest): Promise<void> {
    const {metadata, tags, memory, clock} = this.#parts;
    const {repository, digest, mediaType} = manifest;
    const here = await metadata.manifest(repository, digest);
    if (here?.origin !== 'local') {
      const bytes = await this.#source.manifest(manifest);
      if (!bytes) return this.#source.expectSound();
      const edge = edgeOf({digest, mediaType, bytes});
      const facts = readManifest(bytes);
      const [origin, at] = ['local' as const, clock.now()];
      const put = manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at});
      await tags.write({repository}, [digest], async () => {
        if (!(await metadata.commit([put], this.#source.heldBlobs(repository, bytes))))
          throw deletedMeanwhile(digest);
      });
      memory.keepManifest(repository, {digest, mediaType, bytes, origin, linkedAt: at});
      this.#result.manifests += 1;
    }
    for (const tag of manifest.tags) await this.#restoreTag(manifest, tag);
  }

  async #restoreTag({repository, digest}: BackupManifest, name: Tag): Promise<void> {
    const {metadata, tags, clock} = this.#parts;
    const origin = 'local' as const;
    await tags.write({repository}, [name], async () => {
      const put = {type: 'tag.put' as const, repository, name, digest, origin, at: clock.now()};
      const isNew = await metadata.commit(
        [put],
        [
          {type: 'tag.is', repository, name, origin, digest: undefined},
          {type: 'manifest.linked', repository, digest},
        ],
      );
      if (isNew) this.#result.tags += 1;
      else if ((await metadata.tag(repository, name))?.digest !== digest) this.#result.keptTags += 1;
    });
  }

  async #restoreTagChange(change: PendingTagChange): Promise<void> {
    const {metadata} = this.#parts;
    const known = await metadata.tagJournal(change.repository, change.subject);
    if (known.some(({digest}) => digest === change.digest)) return;
    await metadata.commit([{type: 'tag-journal.put', entry: change}]);
  }
}

const isFull = (error: unknown): boolean => error instanceof DiskFull || isRefusedByDisk(error);

const diskFull = (cause: unknown): Error =>
  new Error(
    'The disk is full or read-only, and no image was restored. Make room and run this again: it continues with what is missing.',
    {cause},
  );

const deletedMeanwhile = (digest: Digest): Error =>
  new Error(`A blob of ${digest} was deleted while the backup was restored. Run this again: it continues.`);
