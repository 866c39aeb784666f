import type {Precondition} from './metadata.ts';

/**
 * Makes sure that work which several could start is done by one at a time: the download of a digest, the write of a
 * subject's fallback tag, garbage collection, the write of an upload.
 */
export interface Coordination {
  /**
   * Claims `key`, unless it is already held. Never waits for the holder: a caller that wants its turn awaits `released`
   * and claims again.
   * @param ttlMs how long others wait for a holder that has died: milliseconds until the claim lapses unless it is
   * renewed. Claims within one process end with it, and last until they are released.
   */
  claim(key: string, ttlMs: number): Promise<Claim | Holder>;
}

export interface Claim {
  readonly mine: true;
  /** A commit that names these changes nothing once somebody else has taken the claim over. */
  readonly fence: readonly Precondition[];
  /** Starts the time of the claim again. @returns false when somebody else has taken it over */
  renew(): Promise<boolean>;
  /** Idempotent; does nothing to a claim that somebody else has taken over. */
  release(): Promise<void>;
}

/** Somebody else holds the key. */
export interface Holder {
  readonly mine: false;
  /** Resolves when it is worth claiming again: the key may be free. */
  released(): Promise<void>;
}

export interface Turn {
  /** As of `claim`. */
  ttlMs: number;
  /** Ends the wait. */
  signal: AbortSignal;
}

/**
 * Claims `key`, and waits for it while somebody else holds it.
 * @throws the signal's reason when it is aborted during the wait
 */
export async function claimInTurn(
  coordination: Coordination,
  key: string,
  {ttlMs, signal}: Turn,
): Promise<Claim> {
  for (;;) {
    const claim = await coordination.claim(key, ttlMs);
    if (claim.mine) return claim;
    await unlessAborted(signal, claim.released());
  }
}

async function unlessAborted(signal: AbortSignal, work: Promise<void>): Promise<void> {
  signal.throwIfAborted();
  const {promise: aborted, reject} = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort, {once: true});
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
