import type {Digest} from '../../src/oci/digest.ts';
import type {StoreLedger} from '../../src/storage/fs/marker.ts';

/** What metadata know of a blob store, in memory: its marker, and the blobs that were recorded. */
export function createLedger(): StoreLedger & {record(digest: Digest): void} {
  const blobs = new Set<Digest>();
  let id: string | undefined;
  return {
    blobStore: async () => ({id, hasBlobs: blobs.size > 0}),
    async blob(digest) {
      return blobs.has(digest) ? {digest} : undefined;
    },
    async commit(changes) {
      for (const change of changes) id = change.id;
    },
    record: (digest) => void blobs.add(digest),
  };
}
