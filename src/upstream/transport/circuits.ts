import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {RepositoryName} from '../../oci/name.ts';
import {UpstreamFailure} from '../port.ts';
import {type Breaker, type BreakerPolicy, createBreaker} from './breaker.ts';
import {type Findings, findingsOfError, findingsOfReply} from './findings.ts';
import type {Reply} from './request.ts';

/**
 * The circuits of one upstream: its host's, which opens after connection errors, time-outs and gateway errors once a
 * probe has confirmed that the host is down, and one for each repository, which opens after its 5xx and time-outs. What
 * fails in one repository keeps nobody from the others.
 */
export interface Circuits {
  /** Resolves when the host has answered its probe, or has not; undefined while it is not being probed. */
  probing(): Promise<void> | undefined;
  /** @throws UpstreamFailure `open` when the host, or this repository, is not asked at the moment. */
  check(repository: RepositoryName): void;
  /** Would a question about this repository be let through freely, and not as a probe? */
  steady(repository: RepositoryName): boolean;
  /** Runs one question, and learns from how it ends. @throws as `check`, and whatever the question throws. */
  run(repository: RepositoryName, question: () => Promise<Reply>): Promise<Reply>;
}

export interface CircuitsDeps {
  /** The upstream's. */
  host: string;
  /** Asks the host for something that concerns no repository. Gives the answer's head; throws as `Send` does. */
  probe(): Promise<Reply>;
  clock: Clock;
  events: Events;
}

/** Repositories whose failures are counted. */
const MAX_REPOSITORIES = 10_000;

export function createCircuits(policy: BreakerPolicy, deps: CircuitsDeps): Circuits {
  const {host, probe, clock, events} = deps;

  const isDown = async (): Promise<boolean> => {
    try {
      return findingsOfReply(await probe(), host).host === 'failing';
    } catch (error) {
      return findingsOfError(error, host).host === 'failing';
    }
  };
  const ofHost = createBreaker(
    policy,
    clock,
    (state) => events.emit('upstream.circuit', {host, state}),
    isDown,
  );
  const ofRepositories = new LRUCache<RepositoryName, Breaker>({max: MAX_REPOSITORIES});

  function ofRepository(repository: RepositoryName): Breaker {
    const known = ofRepositories.get(repository);
    if (known) return known;
    const tell = (state: 'open' | 'half-open' | 'closed') =>
      void events.emit('upstream.circuit', {host, repository, state});
    const breaker = createBreaker(policy, clock, tell);
    ofRepositories.set(repository, breaker);
    return breaker;
  }

  const opened = (what: string, retryAfter: number): UpstreamFailure => {
    const reason = `${what}failed ${policy.failures} times in a row and is not asked at the moment`;
    return new UpstreamFailure('open', host, reason, {retryAfter});
  };

  function check(repository: RepositoryName): void {
    const left = ofHost.closedFor();
    if (left !== undefined) throw opened('', left);
    const leftOfRepository = ofRepository(repository).closedFor();
    if (leftOfRepository !== undefined) throw opened(`${repository} `, leftOfRepository);
  }

  /** Both let it through: `check` has asked them, in the same turn. */
  function enter(repository: RepositoryName): (findings: Findings) => void {
    check(repository);
    const reportHost = ofHost.enter();
    const reportRepository = ofRepository(repository).enter();
    return (findings) => {
      reportHost?.(findings.host);
      reportRepository?.(findings.repository);
    };
  }

  return {
    probing: ofHost.confirming,
    check,
    steady: (repository) => ofHost.steady() && ofRepository(repository).steady(),
    async run(repository, question) {
      const report = enter(repository);
      try {
        const reply = await question();
        report(findingsOfReply(reply, host));
        return reply;
      } catch (error) {
        report(findingsOfError(error, host));
        throw error;
      }
    },
  };
}
