import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {type Claim, type Coordination, claimInTurn} from '../../storage/coordination.ts';
import type {ManifestCursor, Metadata} from '../../storage/metadata.ts';
import {createStoredBytes} from '../blobs/stored-bytes.ts';
import {Recheck, type RecheckParts, type RecheckResult, renewing} from './recheck.ts';

export interface VerifyResult extends RecheckResult {
  /** Files of blobs that the metadata do not know; garbage collection removes them after its grace. */
  unrecorded: number;
}

export interface VerifyProgress extends Omit<VerifyResult, 'bad'> {
  /** The part of the work that is done, 0 to 1. */
  done: number;
}

export interface VerifyOptions {
  /** Reports what is bad, and changes nothing. */
  dryRun: boolean;
  /** Ends the work between two chunks. */
  signal: AbortSignal;
  progress(state: VerifyProgress): void;
}

/** Hashes everything that is stored, while the server goes on serving requests. */
export interface Verify {
  /**
   * Compares every blob and every manifest with its digest, and the metadata with the files. One run at a time; one that
   * is asked for meanwhile follows it.
   * @throws the signal's reason; StoreMissing, with nothing found bad, while the blob store is missing
   */
  run(options: VerifyOptions): Promise<VerifyResult>;
}

export interface VerifyParts extends RecheckParts {
  metadata: Metadata;
  store: BlobStore;
  coordination: Coordination;
  clock: Clock;
}

/** Rows that one query reads. A manifest may have megabytes. */
const MAX_BLOBS = 200;
const MAX_MANIFESTS = 16;
/** The part of the work after which progress is reported again. */
const PROGRESS_STEP = 0.002;
const CLAIM = 'verification';
/** How long other processes wait for one that died. */
const CLAIM_TTL_MS = 60_000;
/** Where in the work the manifests end, and where the blobs end. */
const MANIFESTS_PART = 0.05;
const BLOBS_PART = 0.95;

export const createVerify = (parts: VerifyParts): Verify => ({
  async run(options) {
    const {signal} = options;
    const claim = await claimInTurn(parts.coordination, CLAIM, {ttlMs: CLAIM_TTL_MS, signal});
    try {
      return await new Verification(parts, options, claim).run();
    } finally {
      await claim.release();
    }
  },
});

/** One run. */
class Verification {
  readonly #parts: VerifyParts;
  readonly #options: VerifyOptions;
  readonly #renew: () => Promise<void>;
  readonly #recheck: Recheck;
  #unrecorded = 0;
  /** Bytes of blobs that there are, and that were read. */
  #total = 0;
  #read = 0;
  #reported = 0;

  constructor(parts: VerifyParts, options: VerifyOptions, claim: Claim) {
    this.#parts = parts;
    this.#options = options;
    this.#renew = renewing(claim, parts.clock);
    this.#recheck = new Recheck(parts, options.dryRun);
  }

  async run(): Promise<VerifyResult> {
    await this.#parts.store.check();
    await this.#hashManifests();
    await this.#hashBlobs();
    await this.#findUnrecorded();
    this.#report(1);
    this.#recheck.end();
    return {...this.#recheck.result, unrecorded: this.#unrecorded};
  }

  async #hashManifests(): Promise<void> {
    const {metadata} = this.#parts;
    const last = (await metadata.lastManifest()) ?? 0;
    for (let after: ManifestCursor = 0; after < last; ) {
      const page = await metadata.manifests(after, MAX_MANIFESTS);
      for (const manifest of page) {
        this.#recheck.manifest(manifest);
        await this.#giveWay();
      }
      after = page.at(-1)?.cursor ?? last;
      this.#report(MANIFESTS_PART * Math.min(1, after / last));
    }
  }

  async #hashBlobs(): Promise<void> {
    const {metadata, clock} = this.#parts;
    this.#total = await createStoredBytes(metadata, clock)();
    let after: Digest | undefined;
    for (;;) {
      const page = await metadata.blobs(after, MAX_BLOBS);
      for (const {digest} of page) {
        await this.#recheck.blob(digest, (bytes) => this.#hashed(bytes));
        await this.#giveWay();
      }
      after = page.at(-1)?.digest;
      if (after === undefined) return;
    }
  }

  async #hashed(bytes: number): Promise<void> {
    this.#read += bytes;
    this.#report(MANIFESTS_PART + (BLOBS_PART - MANIFESTS_PART) * Math.min(1, this.#read / this.#total));
    await this.#giveWay();
  }

  async #findUnrecorded(): Promise<void> {
    const {metadata, store, lifecycle} = this.#parts;
    for await (const {digest} of store.list()) {
      await this.#giveWay();
      if (await metadata.blob(digest)) continue;
      if (await lifecycle.isUnrecorded(digest)) this.#unrecorded += 1;
    }
  }

  #report(done: number): void {
    if (done < 1 && done - this.#reported < PROGRESS_STEP) return;
    this.#reported = done;
    const {bad: _, ...counts} = this.#recheck.result;
    this.#options.progress({...counts, unrecorded: this.#unrecorded, done});
  }

  /** Hashing runs on this thread: waiting requests come first. */
  async #giveWay(): Promise<void> {
    await nextTurn();
    this.#options.signal.throwIfAborted();
    await this.#renew();
  }
}
