import {type Digest, digestOf} from './digest.ts';

/** A blob to be written somewhere. */
export interface BlobSource {
  digest: Digest;
  /** Bytes. */
  size: number;
  /** Reads the bytes from the start, at each call. */
  open(): AsyncIterable<Uint8Array>;
}

/** A blob whose bytes are all in memory. */
export function blobOf(bytes: Uint8Array): BlobSource {
  return {
    digest: digestOf(bytes),
    size: bytes.byteLength,
    async *open() {
      yield bytes;
    },
  };
}
