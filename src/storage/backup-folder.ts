import type {Digest} from '../oci/digest.ts';
import type {Tag} from '../oci/name.ts';
import type {PendingTagChange, RepositoryKey} from './metadata.ts';

/** A manifest as one repository has it. */
export interface BackupManifest {
  repository: RepositoryKey;
  digest: Digest;
  mediaType: string;
  /** Bytes. */
  size: number;
  tags: readonly Tag[];
}

/** What a backup holds, beside the bytes of manifests and blobs. */
export interface BackupContents {
  /** In the order in which the repositories were linked to them. */
  manifests: readonly BackupManifest[];
  /** What these manifests name although their repository did not have it. */
  missing: readonly {repository: RepositoryKey; digest: Digest}[];
  /** Changes of upstreams' fallback tags that were still to be made. */
  tagChanges: readonly PendingTagChange[];
}

/**
 * A folder with a backup of one store. Its contents change only with `complete`, all at once: a run that ends before leaves
 * the backup that was there.
 * Errors say which file is wrong and what to do.
 */
export interface BackupFolder {
  /**
   * Prepares the folder for a backup of this store: one that is missing, one that is empty, or one that holds a backup of
   * the same store.
   * @param store the id of the blob store
   * @throws Error for any other folder, with nothing changed
   */
  begin(store: string): Promise<void>;
  /** @throws Error when the folder does not hold a complete backup, or its index is damaged */
  contents(): Promise<BackupContents>;
  /** The size of a manifest or blob whose bytes are here, in bytes. */
  size(digest: Digest): Promise<number | undefined>;
  /** The bytes as they are, not verified. A chunk stays valid. */
  open(digest: Digest): AsyncIterable<Uint8Array>;
  /** Stores bytes durably. @returns false, with nothing stored, when they do not have the digest */
  put(digest: Digest, chunks: AsyncIterable<Uint8Array>): Promise<boolean>;
  /** Replaces the contents of the backup, durably. Everything that they name must be here. */
  complete(contents: BackupContents, at: number): Promise<void>;
  /** Removes all other bytes. */
  prune(keep: {has(digest: Digest): boolean}): Promise<void>;
  /** Where the bytes of a digest are: for messages. */
  pathOf(digest: Digest): string;
  /** Bytes left on the folder's disk. */
  freeBytes(): Promise<number>;
}
