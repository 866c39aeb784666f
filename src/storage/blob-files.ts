/** Where the bytes of a stored blob lie. Plain data, which another thread can use. */
export interface BlobFile {
  readonly path: string;
  /** In bytes. */
  readonly size: number;
}

/** The file of a blob for one reader, who gets all of it, whatever becomes of its name. */
export interface OpenBlob {
  /**
   * All bytes. A chunk is valid until the next one is asked for.
   * @throws what the file system says, DiskFailed, or an error when the file ends too early
   */
  read(): AsyncGenerator<Uint8Array, void, void>;
  /** To be called once, when nothing is being read. */
  close(): Promise<void>;
}

/** Reads the files of blobs, in any thread. The caller has checked that the file may be read. */
export interface BlobFiles {
  /** @throws what the file system says, DiskFailed, or an error for a file of another size */
  open(file: BlobFile): Promise<OpenBlob>;
  /** What is at `path` may be another file now, or none: who opens it from now on gets nothing of an earlier one. */
  forget(path: string): void;
  /** Closes the files that nobody reads. The others are closed with their last reader. */
  close(): Promise<void>;
}
