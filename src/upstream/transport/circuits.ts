import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import type {RepositoryName} from '../../oci/name.ts';
import {UpstreamFailure} from '../port.ts';
import {type Breaker, type BreakerPolicy, createBreaker, type Reachability} from './breaker.ts';
import type {Reply} from './reply.ts';

/**
 * The circuits of one upstream: the host's, which opens after connection errors, timeouts and gateway errors once a
 * probe has confirmed that the host is down, and one for each repository, which opens after 5xx and timeouts there. A
 * failing repository does not affect the others.
 */
export interface Circuits {
  /** Resolves when the host's probe has been answered or has failed; undefined while there is no probe. */
  probing(): Promise<void> | undefined;
  /** @throws UpstreamFailure `open` when the circuit of the host or of this repository is open. */
  check(repository: RepositoryName): void;
  /** Whether a request about this repository would be let through as an ordinary one, and not as a probe. */
  isClosed(repository: RepositoryName): boolean;
  /** Runs one request and counts its result. @throws as `check`, and what the request throws. */
  run(about: CircuitRequest, request: () => Promise<Reply>): Promise<Reply>;
}

/** What a request is about, and whose login it needs. */
export interface CircuitRequest {
  readonly repository: RepositoryName;
  readonly caller: Pick<Caller, 'login'>;
}

export interface CircuitsDeps {
  /** The upstream's. */
  host: string;
  /** Sends a request that concerns no repository. Resolves with the response's head; throws as `Send` does. */
  probe(): Promise<Reply>;
  clock: Clock;
  events: Events;
}

/** Repositories whose failures are counted. */
const MAX_REPOSITORIES = 10_000;

export const createCircuits = (policy: BreakerPolicy, deps: CircuitsDeps): Circuits =>
  new UpstreamCircuits(policy, deps);

class UpstreamCircuits implements Circuits {
  readonly #policy: BreakerPolicy;
  readonly #deps: CircuitsDeps;
  readonly #ofHost: Breaker;
  readonly #ofRepositories = createLru<RepositoryName, Breaker>(MAX_REPOSITORIES);

  constructor(policy: BreakerPolicy, deps: CircuitsDeps) {
    const {host, clock, events} = deps;
    this.#policy = policy;
    this.#deps = deps;
    this.#ofHost = createBreaker(
      policy,
      clock,
      (state) => events.emit('upstream.circuit', {host, state}),
      () => this.#isHostDown(),
    );
  }

  probing(): Promise<void> | undefined {
    return this.#ofHost.confirming();
  }

  check(repository: RepositoryName): void {
    const left = this.#ofHost.retryAfter();
    if (left !== undefined) throw this.#open('', left);
    const leftForRepository = this.#ofRepository(repository).retryAfter();
    if (leftForRepository !== undefined) throw this.#open(`${repository} `, leftForRepository);
  }

  isClosed(repository: RepositoryName): boolean {
    return this.#ofHost.isClosed() && this.#ofRepository(repository).isClosed();
  }

  async run({repository, caller}: CircuitRequest, request: () => Promise<Reply>): Promise<Reply> {
    const {host} = this.#deps;
    const report = this.#enter(repository);
    try {
      const reply = await request();
      report(observationOf(reply, host));
      return reply;
    } catch (error) {
      report(observationOfError(error, host, caller));
      throw error;
    }
  }

  /** Both breakers let the request through: `check` has just asked them, without yielding in between. */
  #enter(repository: RepositoryName): (observation: Observation) => void {
    this.check(repository);
    const reportHost = this.#ofHost.enter();
    const reportRepository = this.#ofRepository(repository).enter();
    return (observation) => {
      reportHost?.(observation.host);
      reportRepository?.(observation.repository);
    };
  }

  #ofRepository(repository: RepositoryName): Breaker {
    const known = this.#ofRepositories.get(repository);
    if (known) return known;
    const {host, clock, events} = this.#deps;
    const breaker = createBreaker(this.#policy, clock, (state) =>
      events.emit('upstream.circuit', {host, repository, state}),
    );
    this.#ofRepositories.set(repository, breaker);
    return breaker;
  }

  async #isHostDown(): Promise<boolean> {
    const {host, probe} = this.#deps;
    try {
      return observationOf(await probe(), host).host === 'failing';
    } catch (error) {
      return observationOfError(error, host).host === 'failing';
    }
  }

  #open(what: string, retryAfter: number): UpstreamFailure {
    const reason = `${what}failed ${this.#policy.failures} times in a row; its circuit breaker lets no requests through`;
    return new UpstreamFailure('open', this.#deps.host, reason, {retryAfter});
  }
}

/** What one request showed about the upstream's host, and about the repository. */
interface Observation {
  host: Reachability;
  repository: Reachability;
}

/** 5xx that are proper answers: not implemented, and loop detected. */
const PROPER_ANSWERS: ReadonlySet<number> = new Set([501, 508]);
/** Sent by a gateway when the server behind it does not answer; any other 5xx is about the requested resource. */
const GATEWAY_ERRORS: ReadonlySet<number> = new Set([502, 503, 504]);
const NOTHING_SHOWN: Observation = {host: 'unknown', repository: 'unknown'};
const REACHABLE: Observation = {host: 'reachable', repository: 'reachable'};

/** @param host the upstream's; a reply from a host that it redirected to shows that the upstream itself is up. */
function observationOf({status, url}: Pick<Reply, 'status' | 'url'>, host: string): Observation {
  if (status < 500 || PROPER_ANSWERS.has(status)) return REACHABLE;
  const isGateway = GATEWAY_ERRORS.has(status) && url.host === host;
  return {host: isGateway ? 'failing' : 'reachable', repository: 'failing'};
}

/**
 * @param error what a request failed with.
 * @param caller whose login was used, where it is the caller's own.
 */
function observationOfError(error: unknown, host: string, {login}: Pick<Caller, 'login'> = {}): Observation {
  if (!(error instanceof UpstreamFailure)) return NOTHING_SHOWN;
  const isHost = error.host === host;
  switch (error.kind) {
    // The upstream may not have been asked at all.
    case 'credentials':
    case 'throttled':
      return NOTHING_SHOWN;
    case 'unreachable':
      return isHost ? {host: 'failing', repository: 'unknown'} : {host: 'reachable', repository: 'failing'};
    case 'timeout':
      return {host: isHost ? 'failing' : 'reachable', repository: 'failing'};
    // The token service may fail for one scope only, and nothing was learned about the upstream itself.
    case 'token':
      // It may fail for a caller's own login only, which anybody can choose.
      return login ? NOTHING_SHOWN : {host: 'unknown', repository: 'failing'};
    default:
      return REACHABLE;
  }
}
