import type {Clock} from '../../clock.ts';
import {createLimit} from '../transport/limit.ts';

/**
 * What a login attempt showed. `undecided`: the service failed, or nothing was asked of the credentials. `forbidden`:
 * either the credentials are bad or they are good and not enough for this; it counts as a refusal unless they were
 * accepted before, so that asking for somebody else's repository does not stop everybody's pulls.
 */
export type Verdict = 'accepted' | 'refused' | 'forbidden' | 'undecided';

/**
 * The credential breaker: one dead account must not become a storm of logins, which would lock it. While the
 * credentials are not known to work, logins go one after another; after a refusal there is none for `pause`.
 */
export interface LoginGate {
  /**
   * Runs one login.
   * @param judge what the attempt's result says about the credentials.
   * @throws whatever `refusal` gives for the time that is left, when the gate is or becomes closed; whatever the
   * attempt throws; the signal's reason.
   */
  login<T>(attempt: () => Promise<T>, judge: (result: T) => Verdict, signal: AbortSignal): Promise<T>;
  /** Are the credentials known to work, so that logins do not wait for each other? */
  proven(): boolean;
}

/**
 * @param pause milliseconds without a login after a refusal.
 * @param refusal makes the error of a login that is not tried.
 * @param onRefused called at each refusal by the other side.
 */
export function createLoginGate(
  pause: number,
  clock: Clock,
  refusal: (left: number) => Error,
  onRefused: () => void,
): LoginGate {
  const oneByOne = createLimit(1);
  let proven = false;
  let closedUntil = Number.NEGATIVE_INFINITY;

  const check = (): void => {
    if (clock.monotonic() < closedUntil) throw refusal(closedUntil - clock.monotonic());
  };
  const run = async <T>(attempt: () => Promise<T>, judge: (result: T) => Verdict): Promise<T> => {
    check();
    const result = await attempt();
    const verdict = judge(result);
    if (verdict === 'accepted') proven = true;
    const refused = verdict === 'refused' || (verdict === 'forbidden' && !proven);
    if (!refused) return result;
    proven = false;
    closedUntil = clock.monotonic() + pause;
    onRefused();
    throw refusal(pause);
  };

  return {
    proven: () => proven,

    async login(attempt, judge, signal) {
      check();
      if (proven) return run(attempt, judge);
      const {release} = await oneByOne.acquire(signal);
      if (proven) {
        release();
        return run(attempt, judge);
      }
      return run(attempt, judge).finally(release);
    },
  };
}
