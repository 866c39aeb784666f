import type {Clock} from '../../clock.ts';
import {createLimit, type Limit} from '../transport/limit.ts';

/** What is sent to an upstream or its token service to log in. */
export type Login =
  | {kind: 'basic'; username: string; password: string}
  /** A refresh token for the token service, as `docker login` stores it. */
  | {kind: 'identity-token'; token: string};

/** The `Authorization` value of Basic credentials (RFC 7617, section 2). */
export const basicAuthorization = ({username, password}: {username: string; password: string}): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;

/**
 * What a login attempt showed. `undecided`: the service failed, or the credentials were not needed. `forbidden`: the
 * credentials are bad, or good but not sufficient for this repository. It counts as a refusal only while the credentials
 * have never been accepted, so that one request for a foreign repository does not stop all pulls.
 */
export type Verdict = 'accepted' | 'refused' | 'forbidden' | 'undecided';

/**
 * A circuit breaker for credentials: repeated logins with bad credentials could lock the account. Until the credentials
 * are known to work, logins run one at a time; after a refusal, none runs for `pause` milliseconds.
 */
export interface LoginGate {
  /**
   * Runs one login.
   * @param judge what the attempt's result shows about the credentials.
   * @throws the error of `refusal` when the gate is closed or closes; what the attempt throws; the signal's reason.
   */
  login<T>(attempt: () => Promise<T>, judge: (result: T) => Verdict, signal: AbortSignal): Promise<T>;
  /** Whether the credentials are known to work, so that logins do not wait for each other. */
  proven(): boolean;
}

/**
 * @param pause milliseconds without a login after a refusal.
 * @param refusal makes the error for a login that is not tried, given the milliseconds left.
 * @param onRefused called each time the other side refuses the credentials.
 */
export const createLoginGate = (
  pause: number,
  clock: Clock,
  refusal: (left: number) => Error,
  onRefused: () => void,
): LoginGate => new CredentialBreaker(pause, clock, refusal, onRefused);

/**
 * For logins that belong to callers: each is tried whatever became of others, and its refusal is an answer to its caller.
 * @param refusal makes the error for a login that the other side refuses (401), or that is not sufficient (403)
 */
export const createOpenGate = (refusal: (status: 401 | 403) => Error): LoginGate => ({
  async login(attempt, judge) {
    const result = await attempt();
    const verdict = judge(result);
    if (verdict === 'refused') throw refusal(401);
    if (verdict === 'forbidden') throw refusal(403);
    return result;
  },
  proven: () => true,
});

class CredentialBreaker implements LoginGate {
  readonly #pause: number;
  readonly #clock: Clock;
  readonly #refusal: (left: number) => Error;
  readonly #onRefused: () => void;
  readonly #oneAtATime: Limit = createLimit(1);
  #proven = false;
  #closedUntil = Number.NEGATIVE_INFINITY;

  constructor(pause: number, clock: Clock, refusal: (left: number) => Error, onRefused: () => void) {
    this.#pause = pause;
    this.#clock = clock;
    this.#refusal = refusal;
    this.#onRefused = onRefused;
  }

  proven(): boolean {
    return this.#proven;
  }

  async login<T>(attempt: () => Promise<T>, judge: (result: T) => Verdict, signal: AbortSignal): Promise<T> {
    this.#check();
    if (this.#proven) return this.#run(attempt, judge);
    const {release} = await this.#oneAtATime.acquire(signal);
    if (this.#proven) {
      release();
      return this.#run(attempt, judge);
    }
    return this.#run(attempt, judge).finally(release);
  }

  #check(): void {
    const left = this.#closedUntil - this.#clock.monotonic();
    if (left > 0) throw this.#refusal(left);
  }

  async #run<T>(attempt: () => Promise<T>, judge: (result: T) => Verdict): Promise<T> {
    this.#check();
    const result = await attempt();
    const verdict = judge(result);
    if (verdict === 'accepted') this.#proven = true;
    const isRefused = verdict === 'refused' || (verdict === 'forbidden' && !this.#proven);
    if (!isRefused) return result;
    this.#proven = false;
    this.#closedUntil = this.#clock.monotonic() + this.#pause;
    this.#onRefused();
    throw this.#refusal(this.#pause);
  }
}
