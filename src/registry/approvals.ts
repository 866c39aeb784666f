import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import {createLru} from '../lru.ts';
import type {Digest} from '../oci/digest.ts';
import {isDigestReference, type Reference, type RepositoryName} from '../oci/name.ts';
import {type Upstream, UpstreamFailure} from '../upstream/port.ts';
import {createSingleFlight} from './keyed.ts';
import type {Decision, Denied} from './place-access.ts';
import {policyOf, type TagPolicies} from './tag-policies.ts';

/** What a caller wants to read in a repository. */
export type Wanted =
  | {readonly kind: 'manifest'; readonly reference: Reference}
  | {readonly kind: 'blob'; readonly digest: Digest}
  | {readonly kind: 'referrers'; readonly subject: Digest}
  | {readonly kind: 'tags'};

/**
 * Who may pull what from an upstream that takes the callers' own logins: it is asked, on behalf of each caller, whatever
 * is stored here. A caller that it lets pull from a repository is approved there for a while.
 */
export interface Approvals {
  /**
   * May this caller pull from the repository? `denied` and `unknown` are what the upstream says. While it cannot be asked,
   * the caller is allowed what it was approved for within `maxStale`.
   * @throws UpstreamFailure when it cannot be asked, and has not approved the caller within that time
   */
  decide(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision>;
  /** Whether the caller is approved now. Asks nobody. */
  has(repository: RepositoryName, caller: Caller): boolean;
  /**
   * Shows that what the upstream has just said to be absent is not only hidden from a caller that it no longer lets in: the
   * absence counts for everybody. Asks about what the caller was last approved for.
   * @throws UpstreamFailure `denied` where the approval has ended
   */
  witness(repository: RepositoryName, caller: Caller): Promise<void>;
  /** Asks whether the upstream accepts the caller's login, whatever it may pull. `unasked`: it cannot be asked. */
  login(caller: Caller): Promise<LoginAnswer>;
}

export type LoginAnswer = 'accepted' | 'refused' | 'unasked';

export interface ApprovalsParts {
  upstream: Upstream;
  policies: {readonly tags: TagPolicies['tags']; readonly tagRules: TagPolicies['tagRules']} & {
    readonly referrers: {readonly maxStale: number};
  };
  clock: Pick<Clock, 'monotonic'>;
}

/** For so long an approval counts: a withdrawn permission is noticed within this time. */
const APPROVED_MS = 60_000;
/** An absence counts for everybody when the caller that learned it was approved this recently. */
const WITNESSED_MS = 5000;
/** Approvals that are remembered, for the time in which the upstream cannot be asked. */
const MAX_APPROVALS = 100_000;

interface Approval {
  /** On the monotonic clock. */
  readonly at: number;
  /** What the upstream showed the caller. */
  readonly by: Wanted;
}

const ALLOWED = Object.freeze({verdict: 'allowed'});
const UNKNOWN = Object.freeze({verdict: 'unknown'});

/** Whether the upstream refuses the login itself, and not only what it is used for. */
export const isLoginRefused = ({failure}: Denied): boolean =>
  failure instanceof UpstreamFailure && failure.status === 401;

/** The caller's key is a keyed hash of its login. */
const keyOf = (repository: RepositoryName, {key}: Caller): string => `${key} ${repository}`;

export const createApprovals = (parts: ApprovalsParts): Approvals => new UpstreamApprovals(parts);

class UpstreamApprovals implements Approvals {
  readonly #parts: ApprovalsParts;
  readonly #approved = createLru<string, Approval>(MAX_APPROVALS);
  /** When it accepted a caller's login. */
  readonly #logins = createLru<string, number>(MAX_APPROVALS);
  readonly #asking = createSingleFlight<Decision>();

  constructor(parts: ApprovalsParts) {
    this.#parts = parts;
  }

  async decide(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision> {
    const key = keyOf(repository, caller);
    const approval = this.#approved.get(key);
    if (approval && this.#isWithin(approval.at, APPROVED_MS)) return ALLOWED;
    try {
      return (await this.#asking.run(key, () => this.#ask(repository, caller, wanted))).value;
    } catch (error) {
      const mayGoOn =
        error instanceof UpstreamFailure &&
        approval !== undefined &&
        this.#isWithin(approval.at, this.#maxStale(repository, wanted));
      if (mayGoOn) return ALLOWED;
      throw error;
    }
  }

  has(repository: RepositoryName, caller: Caller): boolean {
    const approval = this.#approved.get(keyOf(repository, caller));
    return approval !== undefined && this.#isWithin(approval.at, APPROVED_MS);
  }

  async witness(repository: RepositoryName, caller: Caller): Promise<void> {
    const key = keyOf(repository, caller);
    const approval = this.#approved.get(key);
    // Who only pushes is not approved, and an operator's work is not either.
    if (!approval || this.#isWithin(approval.at, WITNESSED_MS)) return;
    const {value} = await this.#asking.run(key, () => this.#ask(repository, caller, approval.by));
    if (value.verdict === 'allowed') return;
    const {host} = this.#parts.upstream;
    throw new UpstreamFailure('denied', host, `no longer lets this caller pull from ${repository}`);
  }

  async login(caller: Caller): Promise<LoginAnswer> {
    const acceptedAt = this.#logins.get(caller.key);
    if (acceptedAt !== undefined && this.#isWithin(acceptedAt, APPROVED_MS)) return 'accepted';
    try {
      await this.#parts.upstream.checkLogin(caller);
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
      return error.kind === 'denied' ? 'refused' : 'unasked';
    }
    this.#logins.set(caller.key, this.#parts.clock.monotonic());
    return 'accepted';
  }

  #isWithin(at: number, ms: number): boolean {
    return this.#parts.clock.monotonic() - at < ms;
  }

  #maxStale(repository: RepositoryName, wanted: Wanted): number {
    const {policies} = this.#parts;
    if (wanted.kind === 'referrers') return policies.referrers.maxStale;
    const isTag = wanted.kind === 'manifest' && !isDigestReference(wanted.reference);
    return isTag ? policyOf(policies, repository, wanted.reference).maxStale : policies.tags.maxStale;
  }

  /** What is not there says nothing about the caller: then the list of tags decides. */
  async #ask(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision> {
    const key = keyOf(repository, caller);
    const at = this.#parts.clock.monotonic();
    try {
      for (const by of wanted.kind === 'tags' ? [wanted] : [wanted, {kind: 'tags'} as const]) {
        if (!(await this.#shows(repository, caller, by))) continue;
        this.#approved.set(key, {at, by});
        return ALLOWED;
      }
    } catch (error) {
      if (!(error instanceof UpstreamFailure && error.kind === 'denied')) throw error;
      this.#approved.delete(key);
      return {verdict: 'denied', failure: error, reason: undefined};
    }
    this.#approved.delete(key);
    return UNKNOWN;
  }

  async #shows(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<boolean> {
    const {upstream} = this.#parts;
    switch (wanted.kind) {
      case 'manifest':
        return (await upstream.headManifest(repository, wanted.reference, caller)) !== undefined;
      case 'referrers':
        return (await upstream.headManifest(repository, wanted.subject, caller)) !== undefined;
      case 'blob':
        return (await upstream.headBlob(repository, wanted.digest, caller)) !== undefined;
      case 'tags':
        return upstream.hasTagList(repository, caller);
    }
  }
}
