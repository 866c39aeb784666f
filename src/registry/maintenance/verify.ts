import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import type {Claim, Coordination} from '../../storage/coordination.ts';
import {
  fullName,
  type LinkedManifest,
  type ManifestCursor,
  type Metadata,
  type Origin,
} from '../../storage/metadata.ts';
import {type BlobCheck, type BlobLifecycle, type BlobProblem, reportCheck} from '../blobs/lifecycle.ts';
import {createStoredBytes} from '../blobs/stored-bytes.ts';
import type {Memory} from '../memory.ts';

/** Stored content that does not have its digest, or is not there. */
export interface BadContent {
  kind: 'blob' | 'manifest';
  digest: Digest;
  /** `local`: pushed here, and lost until it is pushed again. `upstream`: a copy, which the next pull fetches again. */
  origin: Origin;
  problem: BlobProblem;
  /** Registry and name of the repository that a manifest is in. */
  repository?: string;
}

export interface VerifyCounts {
  /** Blobs that were hashed. */
  blobs: number;
  /** Manifests that were hashed, each once for every repository that is linked to it. */
  manifests: number;
  /** Bytes of those blobs. */
  bytes: number;
  /** Files of blobs that the metadata do not know; garbage collection removes them after its grace. */
  unrecorded: number;
  /** Blobs whose row named a wrong size. Until it was corrected they could not be served. */
  sizes: number;
  /** Bad copies. */
  copies: number;
  /** Bad content that was pushed here. */
  local: number;
}

export interface VerifyResult extends VerifyCounts {
  /** What is bad, at most `MAX_LISTED` of it. */
  bad: BadContent[];
}

export interface VerifyProgress extends VerifyCounts {
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

export interface VerifyParts {
  metadata: Metadata;
  store: BlobStore;
  lifecycle: BlobLifecycle;
  memory: Memory;
  coordination: Coordination;
  clock: Clock;
  events: Events;
}

/** Bad content that a result lists. */
export const MAX_LISTED = 1000;
/** Rows that one query reads. A manifest may have megabytes. */
const MAX_BLOBS = 200;
const MAX_MANIFESTS = 16;
/** The part of the work after which progress is reported again. */
const PROGRESS_STEP = 0.002;
const CLAIM = 'verification';
/** How long other processes wait for one that died. */
const CLAIM_TTL_MS = 60_000;
/** How long a claim of another process is kept before it is renewed. */
const RENEW_AFTER_MS = 20_000;
/** Where in the work the manifests end, and where the blobs end. */
const MANIFESTS_PART = 0.05;
const BLOBS_PART = 0.95;

export const createVerify = (parts: VerifyParts): Verify => ({
  async run(options) {
    const claim = await claimed(parts.coordination);
    try {
      return await new Verification(parts, options, claim).run();
    } finally {
      await claim.release();
    }
  },
});

async function claimed(coordination: Coordination): Promise<Claim> {
  for (;;) {
    const claim = await coordination.claim(CLAIM, CLAIM_TTL_MS);
    if (claim.mine) return claim;
    await claim.released();
  }
}

/** One run. */
class Verification {
  readonly #parts: VerifyParts;
  readonly #options: VerifyOptions;
  readonly #claim: Claim;
  readonly #result: VerifyResult = {
    blobs: 0,
    manifests: 0,
    bytes: 0,
    unrecorded: 0,
    sizes: 0,
    copies: 0,
    local: 0,
    bad: [],
  };
  #renewedAt: number;
  /** Bytes of blobs that there are, and that were read. */
  #total = 0;
  #read = 0;
  #reported = 0;

  constructor(parts: VerifyParts, options: VerifyOptions, claim: Claim) {
    this.#parts = parts;
    this.#options = options;
    this.#claim = claim;
    this.#renewedAt = parts.clock.monotonic();
  }

  async run(): Promise<VerifyResult> {
    const {store, events} = this.#parts;
    const result = this.#result;
    await store.check();
    await this.#hashManifests();
    await this.#hashBlobs();
    await this.#findUnrecorded();
    this.#report(1);
    const {blobs, manifests, bytes, sizes, copies, local} = result;
    events.emit('content.verified', {blobs, manifests, bytes, bad: sizes + copies + local});
    return result;
  }

  async #hashManifests(): Promise<void> {
    const {metadata} = this.#parts;
    const last = (await metadata.lastManifest()) ?? 0;
    for (let after: ManifestCursor = 0; after < last; ) {
      const page = await metadata.manifests(after, MAX_MANIFESTS);
      for (const manifest of page) {
        this.#hashManifest(manifest);
        await this.#giveWay();
      }
      after = page.at(-1)?.cursor ?? last;
      this.#report(MANIFESTS_PART * Math.min(1, after / last));
    }
  }

  /** A damaged manifest needs no removing: the metadata do not give it, and the next pull or push replaces it. */
  #hashManifest({repository, digest, origin, bytes}: LinkedManifest): void {
    this.#result.manifests += 1;
    if (digestOf(bytes, algorithmOf(digest)) === digest) return;
    const {memory, events} = this.#parts;
    if (!this.#options.dryRun) memory.forgetManifest(repository, digest);
    const {registry, name} = repository;
    events.emit('manifest.damaged', {registry, repository: name, digest, origin});
    this.#list({kind: 'manifest', digest, origin, problem: 'damaged', repository: fullName(repository)});
  }

  async #hashBlobs(): Promise<void> {
    const {metadata, clock} = this.#parts;
    this.#total = await createStoredBytes(metadata, clock)();
    let after: Digest | undefined;
    for (;;) {
      const page = await metadata.blobs(after, MAX_BLOBS);
      for (const {digest} of page) await this.#hashBlob(digest);
      after = page.at(-1)?.digest;
      if (after === undefined) return;
    }
  }

  async #hashBlob(digest: Digest): Promise<void> {
    const {lifecycle, events} = this.#parts;
    const {dryRun} = this.#options;
    const check: BlobCheck = await lifecycle.check(digest, {dryRun, pace: (bytes) => this.#hashed(bytes)});
    await this.#giveWay();
    if (check.state === 'absent') return;
    this.#result.blobs += 1;
    if (check.state === 'sound') {
      this.#result.bytes += check.size;
      if (!check.isRecorded) this.#result.sizes += 1;
      return;
    }
    reportCheck(events, digest, check);
    this.#list({kind: 'blob', digest, origin: check.origin, problem: check.state});
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
      if (await lifecycle.isUnrecorded(digest)) this.#result.unrecorded += 1;
    }
  }

  #list(bad: BadContent): void {
    const result = this.#result;
    result[bad.origin === 'local' ? 'local' : 'copies'] += 1;
    if (result.bad.length < MAX_LISTED) result.bad.push(bad);
  }

  #report(done: number): void {
    if (done < 1 && done - this.#reported < PROGRESS_STEP) return;
    this.#reported = done;
    const {bad: _, ...counts} = this.#result;
    this.#options.progress({...counts, done});
  }

  /** Hashing runs on this thread: waiting requests come first. */
  async #giveWay(): Promise<void> {
    await nextTurn();
    this.#options.signal.throwIfAborted();
    const now = this.#parts.clock.monotonic();
    if (now - this.#renewedAt < RENEW_AFTER_MS) return;
    this.#renewedAt = now;
    if (!(await this.#claim.renew())) throw new Error('another process verifies this store now');
  }
}
