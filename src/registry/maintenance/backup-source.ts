import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {readManifest} from '../../oci/manifest.ts';
import type {BackupContents, BackupFolder, BackupManifest} from '../../storage/backup-folder.ts';
import {fullName, fullReference, type Precondition, type RepositoryKey} from '../../storage/metadata.ts';

/** A blob that a backup's manifests name. */
export interface NeededBlob {
  /** Bytes. */
  size: number;
  /** The repositories whose manifests name it, by their full names. */
  repositories: Map<string, RepositoryKey>;
}

/** A backup as it is read for a restore: what is wrong in it is noted, and reported together. */
export interface BackupSource {
  contents(): Promise<BackupContents>;
  /**
   * Verifies all manifests, and looks for the blobs that they name.
   * @throws Error that names what is missing or damaged; the signal's reason
   */
  blobs(contents: BackupContents, signal: AbortSignal): Promise<ReadonlyMap<Digest, NeededBlob>>;
  /** The verified bytes of a manifest; undefined, with a fault noted, when they are missing or damaged. */
  manifest(manifest: BackupManifest): Promise<Buffer | undefined>;
  /** The bytes of a blob, not verified. */
  open(digest: Digest): AsyncIterable<Uint8Array>;
  /** What must hold when a repository gets a manifest: a client may have deleted a restored blob meanwhile. */
  heldBlobs(repository: RepositoryKey, bytes: Buffer): Precondition[];
  fault(digest: Digest, what: string): void;
  /** @throws Error that names the faults, if there are any */
  expectSound(): void;
}

export const WRONG = 'does not have its digest';
const MISSING = 'is missing';
/** How many faults an error names. */
const MAX_NAMED = 10;

export const createBackupSource = (folder: BackupFolder): BackupSource => new FolderSource(folder);

class FolderSource implements BackupSource {
  readonly #folder: BackupFolder;
  readonly #blobs = new Map<Digest, NeededBlob>();
  /** Lines of the error, each once. */
  readonly #faults = new Set<string>();

  constructor(folder: BackupFolder) {
    this.#folder = folder;
  }

  contents(): Promise<BackupContents> {
    return this.#folder.contents();
  }

  async blobs({manifests, missing}: BackupContents, signal: AbortSignal) {
    const known = new Set(
      [...missing, ...manifests].map(({repository, digest}) => fullReference(repository, digest)),
    );
    for (const manifest of manifests) {
      signal.throwIfAborted();
      const bytes = await this.manifest(manifest);
      if (!bytes) continue;
      for (const digest of namedIn(bytes)) {
        if (!known.has(fullReference(manifest.repository, digest))) await this.#need(digest, manifest);
      }
    }
    this.expectSound();
    return this.#blobs;
  }

  async manifest({digest, size}: BackupManifest): Promise<Buffer | undefined> {
    const found = await this.#folder.size(digest);
    if (found === size) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of this.#folder.open(digest)) chunks.push(chunk);
      const bytes = Buffer.concat(chunks);
      if (digestOf(bytes, algorithmOf(digest)) === digest) return bytes;
    }
    this.fault(digest, found === undefined ? MISSING : WRONG);
    return undefined;
  }

  open(digest: Digest): AsyncIterable<Uint8Array> {
    return this.#folder.open(digest);
  }

  heldBlobs(repository: RepositoryKey, bytes: Buffer): Precondition[] {
    const name = fullName(repository);
    return namedIn(bytes)
      .filter((digest) => this.#blobs.get(digest)?.repositories.has(name))
      .map((digest) => ({type: 'blob.held', repository, digest}));
  }

  fault(digest: Digest, what: string): void {
    this.#faults.add(`${this.#folder.pathOf(digest)} ${what}`);
  }

  expectSound(): void {
    if (this.#faults.size === 0) return;
    const more = this.#faults.size > MAX_NAMED ? `\n  and ${this.#faults.size - MAX_NAMED} more` : '';
    throw new Error(
      `The backup is damaged, and no image was restored:\n  ${[...this.#faults].slice(0, MAX_NAMED).join('\n  ')}${more}\nUse another copy of it. If its store still exists, remove the damaged files and run "backref backup" into this folder: it copies what is missing.`,
    );
  }

  async #need(digest: Digest, {repository}: BackupManifest): Promise<void> {
    let blob = this.#blobs.get(digest);
    if (!blob) {
      const size = await this.#folder.size(digest);
      if (size === undefined) this.fault(digest, MISSING);
      blob = {size: size ?? 0, repositories: new Map()};
      this.#blobs.set(digest, blob);
    }
    blob.repositories.set(fullName(repository), repository);
  }
}

/** Everything that a manifest names as its own content, each once. */
function namedIn(bytes: Buffer): Digest[] {
  const {manifests, blobs, foreign} = readManifest(bytes);
  return [...new Set([...manifests, ...blobs, ...foreign].map(({digest}) => digest))];
}
