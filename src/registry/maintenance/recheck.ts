import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import type {Claim} from '../../storage/coordination.ts';
import {fullName, type LinkedManifest, type Origin} from '../../storage/metadata.ts';
import type {BlobProblem} from '../blobs/inspection.ts';
import type {BlobLifecycle, CheckOptions} from '../blobs/lifecycle.ts';
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

/** What was hashed, and what was found. */
export interface RecheckResult {
  /** Blobs that were hashed. */
  blobs: number;
  /** Manifests that were hashed, each once for every repository that is linked to it. */
  manifests: number;
  /** Bytes of those blobs. */
  bytes: number;
  /** Blobs whose row named a wrong size. Until it was corrected they could not be served. */
  sizes: number;
  /** Bad copies. */
  copies: number;
  /** Bad content that was pushed here. */
  local: number;
  /** What is bad, at most `MAX_LISTED` of it. */
  bad: BadContent[];
}

export interface RecheckParts {
  lifecycle: BlobLifecycle;
  memory: Memory;
  events: Events;
}

/** Bad content that a result lists. */
const MAX_LISTED = 1000;

/** Hashes stored content piece by piece, reports what is bad, and counts. */
export class Recheck {
  readonly result: RecheckResult = {
    blobs: 0,
    manifests: 0,
    bytes: 0,
    sizes: 0,
    copies: 0,
    local: 0,
    bad: [],
  };
  readonly #parts: RecheckParts;
  readonly #dryRun: boolean;

  /** @param dryRun changes nothing */
  constructor(parts: RecheckParts, dryRun: boolean) {
    this.#parts = parts;
    this.#dryRun = dryRun;
  }

  /** A damaged manifest needs no removing: the metadata do not give it, and the next pull or push replaces it. */
  manifest({repository, digest, origin, bytes}: LinkedManifest): void {
    this.result.manifests += 1;
    if (digestOf(bytes, algorithmOf(digest)) === digest) return;
    const {memory, events} = this.#parts;
    if (!this.#dryRun) memory.forgetManifest(repository, digest);
    const {registry, name} = repository;
    events.emit('manifest.damaged', {registry, repository: name, digest, origin});
    this.#list({kind: 'manifest', digest, origin, problem: 'damaged', repository: fullName(repository)});
  }

  /** @param pace see `CheckOptions` */
  async blob(digest: Digest, pace: CheckOptions['pace']): Promise<void> {
    const check = await this.#parts.lifecycle.check(digest, {dryRun: this.#dryRun, ...(pace ? {pace} : {})});
    if (check.state === 'absent') return;
    this.result.blobs += 1;
    if (check.state === 'sound') {
      this.result.bytes += check.size;
      if (!check.isRecorded) this.result.sizes += 1;
      return;
    }
    this.#list({kind: 'blob', digest, origin: check.origin, problem: check.state});
  }

  /** Emits the event of what was hashed, if anything was. */
  end(): void {
    const {blobs, manifests, bytes, sizes, copies, local} = this.result;
    if (blobs + manifests === 0) return;
    this.#parts.events.emit('content.verified', {blobs, manifests, bytes, bad: sizes + copies + local});
  }

  #list(bad: BadContent): void {
    const {result} = this;
    result[bad.origin === 'local' ? 'local' : 'copies'] += 1;
    if (result.bad.length < MAX_LISTED) result.bad.push(bad);
  }
}

/** How long a claim is kept before it is renewed. */
const RENEW_AFTER_MS = 20_000;

/** @returns what renews the claim when it is time to. It throws Error when another process has taken the claim over */
export function renewing(claim: Claim, clock: Clock): () => Promise<void> {
  let renewedAt = clock.monotonic();
  return async () => {
    const now = clock.monotonic();
    if (now - renewedAt < RENEW_AFTER_MS) return;
    renewedAt = now;
    if (!(await claim.renew())) throw new Error('another process does this now');
  };
}
