import {Readable} from 'node:stream';
import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {readManifest} from '../../oci/manifest.ts';
import type {Tag} from '../../oci/name.ts';
import type {BackupContents, BackupFolder, BackupManifest} from '../../storage/backup-folder.ts';
import {type BlobStore, StoreMissing} from '../../storage/blob-store.ts';
import type {Coordination} from '../../storage/coordination.ts';
import {
  fullName,
  fullReference,
  type Metadata,
  type MetadataSnapshot,
  type PendingTagChange,
  type RepositoryKey,
} from '../../storage/metadata.ts';
import {claimCollection} from './garbage.ts';

/** What a backup holds, and what this run added. */
export interface BackupResult {
  manifests: number;
  tags: number;
  blobs: number;
  /** Manifests and blobs that were not in the folder before. */
  copied: number;
  /** Bytes of those. */
  bytes: number;
  /**
   * References of manifests to content that their repository does not have here: what an overlay's upstream has, or what
   * was never pushed where `validate` allows that.
   */
  missing: number;
}

export interface BackupProgress {
  /** The fraction of the bytes that is copied, 0 to 1. */
  done: number;
  copied: number;
  bytes: number;
}

export interface BackupOptions {
  /** Absolute path. */
  folder: string;
  /** Ends the backup. An earlier one in the folder stays complete, and what was copied need not be copied again. */
  signal: AbortSignal;
  progress(state: BackupProgress): void;
}

/** Copies what was pushed here while pushes and pulls go on. Copies of what an upstream has are left out. */
export interface Backup {
  /**
   * The backup is the state at one moment; a manifest in it has everything that it names and that its repository had.
   * Garbage is not collected meanwhile.
   * @throws the signal's reason; StoreMissing; Error for a folder that cannot take it, or when stored content is damaged
   */
  run(options: BackupOptions): Promise<BackupResult>;
}

export interface BackupParts {
  metadata: Metadata;
  store: BlobStore;
  /** Opens the folder of a backup by its absolute path. */
  backupFolder(path: string): BackupFolder;
  coordination: Coordination;
  clock: Clock;
}

/** Rows that one query reads. */
const PAGE = 200;
/** How much is copied between two reports of progress. */
const REPORT_EVERY_BYTES = 16 * 1024 * 1024;
/** How many damaged blobs an error names. */
const MAX_NAMED = 10;

/** A blob that the backup needs. */
interface BlobToCopy {
  size: number;
  namedBy: string;
}

/** The stored bytes of a blob cannot be read. */
class Unreadable extends Error {}

export const createBackup = (parts: BackupParts): Backup => ({
  async run(options) {
    // Until the bytes are copied, nothing that the snapshot names may be removed.
    const claim = await claimCollection(parts.coordination, options.signal);
    try {
      options.signal.throwIfAborted();
      return await new BackupRun(parts, options).run();
    } finally {
      await claim.release();
    }
  },
});

class BackupRun {
  readonly #parts: BackupParts;
  readonly #options: BackupOptions;
  readonly #folder: BackupFolder;
  readonly #manifests: (BackupManifest & {tags: Tag[]})[] = [];
  /** By `registry/name@digest`. */
  readonly #included = new Map<string, {tags: Tag[]}>();
  readonly #missing: {repository: RepositoryKey; digest: Digest}[] = [];
  readonly #blobs = new Map<Digest, BlobToCopy>();
  #toCopy = 0;
  #copied = 0;
  #bytes = 0;
  #reported = 0;

  constructor(parts: BackupParts, options: BackupOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#folder = parts.backupFolder(options.folder);
  }

  async run(): Promise<BackupResult> {
    const {metadata, store, clock} = this.#parts;
    await store.check();
    const {id} = await metadata.blobStore();
    if (id === undefined) throw new Error('The blob store has no id yet: its disk is full or read-only.');
    await this.#folder.begin(id);
    const at = clock.now();
    const tagChanges = await this.#readSnapshot();
    await this.#copyBlobs();
    const contents: BackupContents = {manifests: this.#manifests, missing: this.#missing, tagChanges};
    await this.#folder.complete(contents, at);
    const manifests = new Set<Digest>(this.#manifests.map(({digest}) => digest));
    await this.#folder.prune({has: (digest) => manifests.has(digest) || this.#blobs.has(digest)});
    return {
      manifests: this.#manifests.length,
      tags: this.#manifests.reduce((sum, {tags}) => sum + tags.length, 0),
      blobs: this.#blobs.size,
      copied: this.#copied,
      bytes: this.#bytes,
      missing: this.#missing.length,
    };
  }

  /** Copies the manifests, and finds the tags and the blobs that belong to them. */
  async #readSnapshot(): Promise<PendingTagChange[]> {
    const snapshot = await this.#parts.metadata.snapshot();
    try {
      const repositories = new Map<string, RepositoryKey>();
      for (let after: number | undefined; ; ) {
        const page = await snapshot.localManifests(after, PAGE);
        for (const {repository, ...manifest} of page) {
          this.#options.signal.throwIfAborted();
          await this.#include(snapshot, repository, manifest);
          repositories.set(fullName(repository), repository);
        }
        after = page.at(-1)?.cursor;
        if (page.length < PAGE) break;
      }
      for (const repository of repositories.values()) await this.#includeTags(snapshot, repository);
      return await journalOf(snapshot);
    } finally {
      await snapshot.close();
    }
  }

  /** Children first, so that a restored index is never visible before them. */
  async #include(
    snapshot: MetadataSnapshot,
    repository: RepositoryKey,
    {digest, mediaType, bytes}: {digest: Digest; mediaType: string; bytes: Buffer},
  ): Promise<void> {
    const key = fullReference(repository, digest);
    if (this.#included.has(key)) return;
    if (digestOf(bytes, algorithmOf(digest)) !== digest) throw damagedManifest(key);
    const entry = {repository, digest, mediaType, size: bytes.length, tags: []};
    this.#included.set(key, entry);
    const facts = readManifest(bytes);
    for (const child of facts.manifests) {
      const manifest = await snapshot.manifest(repository, child.digest);
      if (manifest) await this.#include(snapshot, repository, manifest);
      else await this.#includeBlob(snapshot, entry, child.digest);
    }
    for (const blob of [...facts.blobs, ...facts.foreign])
      await this.#includeBlob(snapshot, entry, blob.digest);
    await this.#copyManifest(digest, bytes);
    this.#manifests.push(entry);
  }

  async #includeBlob(
    snapshot: MetadataSnapshot,
    {repository, digest: manifest}: BackupManifest,
    digest: Digest,
  ): Promise<void> {
    const link = await snapshot.blobLink(repository, digest);
    const blob = link && (await snapshot.blob(digest));
    // Without a link, bytes that are here belong to another repository.
    if (blob?.state !== 'ready') this.#missing.push({repository, digest});
    else if (!this.#blobs.has(digest)) {
      this.#blobs.set(digest, {size: blob.size, namedBy: fullReference(repository, manifest)});
    }
  }

  async #copyManifest(digest: Digest, bytes: Buffer): Promise<void> {
    // Queries run on this thread: requests that wait come first.
    await nextTurn();
    if ((await this.#folder.size(digest)) === bytes.length) return;
    await this.#folder.put(digest, Readable.from([bytes]));
    this.#copied += 1;
    this.#bytes += bytes.length;
  }

  async #includeTags(snapshot: MetadataSnapshot, repository: RepositoryKey): Promise<void> {
    for (let after: Tag | undefined; ; ) {
      const names = await snapshot.localTags(repository, {...(after ? {after} : {}), limit: PAGE});
      for (const name of names) {
        const record = await snapshot.tag(repository, name);
        if (record) this.#included.get(fullReference(repository, record.digest))?.tags.push(name);
      }
      after = names.at(-1);
      if (after === undefined || names.length < PAGE) return;
      await nextTurn();
    }
  }

  async #copyBlobs(): Promise<void> {
    const needed: Digest[] = [];
    for (const [digest, {size}] of this.#blobs) {
      if ((await this.#folder.size(digest)) === size) continue;
      needed.push(digest);
      this.#toCopy += size;
    }
    const free = await this.#folder.freeBytes();
    if (free < this.#toCopy) {
      throw new Error(
        `${this.#options.folder} has no space for this backup: ${this.#toCopy} bytes are to be copied, ${free} are free. An earlier backup in it is still complete.`,
      );
    }
    this.#toCopy += this.#bytes;
    this.#report();
    const damaged: Digest[] = [];
    for (const digest of needed) if (!(await this.#copyBlob(digest))) damaged.push(digest);
    if (damaged.length > 0) throw this.#damage(damaged);
  }

  /** @returns false when what is stored is not the blob */
  async #copyBlob(digest: Digest): Promise<boolean> {
    try {
      if (!(await this.#folder.put(digest, this.#read(digest)))) return false;
    } catch (error) {
      if (error instanceof Unreadable) return false;
      throw error;
    }
    this.#copied += 1;
    this.#report();
    return true;
  }

  /** The stored bytes. Errors of who reads them do not arrive here. */
  async *#read(digest: Digest): AsyncGenerator<Uint8Array> {
    const {signal} = this.#options;
    try {
      for await (const chunk of this.#parts.store.open(digest)) {
        signal.throwIfAborted();
        this.#bytes += chunk.length;
        if (this.#bytes - this.#reported >= REPORT_EVERY_BYTES) this.#report();
        yield chunk;
      }
    } catch (error) {
      if (error instanceof StoreMissing || signal.aborted) throw error;
      throw new Unreadable(digest, {cause: error});
    }
  }

  #report(): void {
    this.#reported = this.#bytes;
    const done = this.#toCopy === 0 ? 1 : Math.min(1, this.#bytes / this.#toCopy);
    this.#options.progress({done, copied: this.#copied, bytes: this.#bytes});
  }

  #damage(damaged: readonly Digest[]): Error {
    const named = damaged
      .slice(0, MAX_NAMED)
      .map((digest) => `\n  ${digest}, which ${this.#blobs.get(digest)?.namedBy} names`);
    const more = damaged.length > MAX_NAMED ? `\n  and ${damaged.length - MAX_NAMED} more` : '';
    return new Error(
      `The backup was not completed; an earlier one stays as it was. In the store, blobs are damaged or lost:${named.join('')}${more}\nPush them again, or delete the manifests that name them. Then run this again: it continues.`,
    );
  }
}

async function journalOf(snapshot: MetadataSnapshot): Promise<PendingTagChange[]> {
  const changes: PendingTagChange[] = [];
  for (;;) {
    const page = await snapshot.pendingTagChanges(changes.at(-1), PAGE);
    changes.push(...page);
    if (page.length < PAGE) return changes;
    await nextTurn();
  }
}

const damagedManifest = (reference: string): Error =>
  new Error(`The stored manifest ${reference} is damaged: push or restore it again, or delete it.`);
