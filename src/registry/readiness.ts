import type {Clock} from '../clock.ts';
import {createUploadId} from '../oci/upload.ts';
import type {BlobStore} from '../storage/blob-store.ts';
import type {Metadata} from '../storage/metadata.ts';
import type {Spools} from '../storage/spool.ts';
import {createSingleFlight} from './keyed.ts';

/** Whether this server should receive requests. */
export interface Readiness {
  /** Why it is not ready, each reason in a few words that are safe to publish; empty when it is ready. */
  problems(): Promise<readonly string[]>;
  /** Blobs that were pushed here and are known to be bad. Everything else can be served: see docs/decisions/0050. */
  damagedLocalBlobs(): number;
}

export interface ReadinessParts {
  store: BlobStore;
  metadata: Metadata;
  spools: Spools;
  /** Bytes left on the disks of blobs and metadata: the smaller number. */
  freeBytes(): Promise<number>;
  isStopping(): boolean;
  damagedLocalBlobs(): number;
  clock: Clock;
}

/** With less free space than this, the metadata may not be able to store what an answer or a push needs. */
const MIN_FREE_BYTES = 16 * 2 ** 20;
/** How long a result is reused: anybody may ask, and each check writes to the disk. */
const RESULT_LIFE_MS = 1000;

/** Checks that the store can be read and written, through the same ports as pulls and pushes. */
export function createReadiness({
  store,
  metadata,
  spools,
  freeBytes,
  isStopping,
  damagedLocalBlobs,
  clock,
}: ReadinessParts): Readiness {
  const looks = createSingleFlight<readonly string[]>();
  let last: {problems: readonly string[]; at: number} | undefined;

  /** Checks for the store first: nothing is written to a disk that is not the store's. */
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
    damagedLocalBlobs,
    async problems() {
      if (isStopping()) return ['the server is being stopped'];
      if (last && clock.monotonic() - last.at < RESULT_LIFE_MS) return last.problems;
      return (await looks.run('look', look)).value;
    },
  };
}

/** The problem, when the work fails. The error itself may name folders, so it is not published. */
const problemOf = (problem: string, work: Promise<unknown>): Promise<string | undefined> =>
  work.then(
    () => undefined,
    () => problem,
  );
