import type {Clock} from '../clock.ts';
import {createUploadId} from '../oci/upload.ts';
import type {BlobStore} from '../storage/blob-store.ts';
import type {Metadata} from '../storage/metadata.ts';
import type {Spools} from '../storage/spool.ts';
import {createSingleFlight} from './keyed.ts';

/** Whether this server should be sent requests. */
export interface Readiness {
  /** What is in the way, each in a few words that anybody may read; empty when it is ready. */
  problems(): Promise<readonly string[]>;
}

export interface ReadinessParts {
  store: BlobStore;
  metadata: Metadata;
  spools: Spools;
  /** Bytes left where blobs and metadata are, the least of them. */
  freeBytes(): Promise<number>;
  isStopping(): boolean;
  clock: Clock;
}

/** With less space left than this the metadata may not take what an answer or a push needs. */
const MIN_FREE_BYTES = 16 * 2 ** 20;
/** An answer is used for so long: anybody may ask, and each look writes to the disk. */
const REMEMBERED_MS = 1000;

/** Looks whether the store can be read and written to, by the very ways that pulls and pushes go. */
export function createReadiness({
  store,
  metadata,
  spools,
  freeBytes,
  isStopping,
  clock,
}: ReadinessParts): Readiness {
  const looks = createSingleFlight<readonly string[]>();
  let last: {problems: readonly string[]; at: number} | undefined;

  /** Nothing is written to a disk that is not the store's. */
  async function lookAtBlobs(): Promise<string | undefined> {
    return (
      (await problemOf('the blob store is missing or cannot be read', store.check())) ??
      (await problemOf('the folder of the blobs cannot be written to', tryWrite()))
    );
  }

  async function tryWrite(): Promise<void> {
    const spool = await spools.open(createUploadId());
    try {
      await spool.append(Buffer.from('ready?'));
      await spool.flush();
    } finally {
      await spool.discard();
    }
  }

  async function lookAtSpace(): Promise<string | undefined> {
    const free = await freeBytes().catch(() => undefined);
    return free !== undefined && free < MIN_FREE_BYTES ? 'the disk is full' : undefined;
  }

  async function look(): Promise<readonly string[]> {
    const found = await Promise.all([
      lookAtBlobs(),
      problemOf('the metadata cannot be read', metadata.blobStore()),
      problemOf('the metadata cannot be written', metadata.commit([])),
      lookAtSpace(),
    ]);
    const problems = found.filter((problem) => problem !== undefined);
    last = {problems, at: clock.monotonic()};
    return problems;
  }

  return {
    async problems() {
      if (isStopping()) return ['the server is being stopped'];
      if (last && clock.monotonic() - last.at < REMEMBERED_MS) return last.problems;
      return (await looks.run('look', look)).value;
    },
  };
}

/** What is said of work that fails. Its error may name folders, which are nobody's business: the log has them. */
const problemOf = (problem: string, work: Promise<unknown>): Promise<string | undefined> =>
  work.then(
    () => undefined,
    () => problem,
  );
