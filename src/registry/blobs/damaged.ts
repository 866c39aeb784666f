import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Origin} from '../../storage/metadata.ts';
import type {BlobProblem} from './inspection.ts';

/** The blobs that were pushed here and whose stored bytes are known to be bad, until they are good again. */
export interface DamagedBlobs {
  /** How many there are. Those that nobody has looked at since the process began do not count. */
  readonly count: number;
  /** Reports a bad blob: one that was pushed here once until it is good again, a copy each time. */
  found(digest: Digest, problem: BlobProblem, origin: Origin): void;
  /** Its file is there again, with the right size: that says nothing of bytes that were found to be wrong. */
  isThere(digest: Digest): void;
  /** Its bytes are verified again, or nobody needs them any more. */
  isSettled(digest: Digest): void;
}

export const createDamagedBlobs = (events: Events): DamagedBlobs => new KnownDamages(events);

class KnownDamages implements DamagedBlobs {
  readonly #events: Events;
  readonly #known = new Map<Digest, BlobProblem>();

  constructor(events: Events) {
    this.#events = events;
  }

  get count(): number {
    return this.#known.size;
  }

  found(digest: Digest, problem: BlobProblem, origin: Origin): void {
    const isNew = !this.#known.has(digest);
    if (origin === 'local') this.#known.set(digest, problem);
    else this.#known.delete(digest);
    if (isNew || origin === 'upstream') this.#events.emit('blob.damaged', {digest, origin, problem});
  }

  isThere(digest: Digest): void {
    if (this.#known.get(digest) === 'missing') this.#known.delete(digest);
  }

  isSettled(digest: Digest): void {
    this.#known.delete(digest);
  }
}
