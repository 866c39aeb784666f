import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import {createLru} from '../lru.ts';
import {type Digest, isDigest} from '../oci/digest.ts';
import {isDigestReference, type Reference, type RepositoryName} from '../oci/name.ts';
import {subjectPrefix} from '../oci/referrers.ts';
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
 * is stored here. A caller that it shows some content of a repository is approved for the content there for a while, and one
 * that it shows tags for the list of tags.
 */
export interface Approvals {
  /**
   * May this caller have it? `denied` and `unknown` are what the upstream says. While the upstream is down, the caller is
   * allowed what it was approved for within `maxStale`.
   * @throws UpstreamFailure when it cannot be asked, and has not approved the caller within that time
   */
  decide(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision>;
  /** Whether the caller is approved for the content of a repository now. Asks nobody. */
  has(repository: RepositoryName, caller: Caller): boolean;
  /**
   * Shows that what the upstream has just said to be absent is not only hidden from the caller: then the absence counts for
   * everybody. Asks about what the caller was last shown.
   * @throws UpstreamFailure `denied` where the upstream does not show that, or has not shown the caller anything
   */
  witness(repository: RepositoryName, caller: Caller, what: 'content' | 'tags'): Promise<void>;
  /** The upstream has taken this manifest from the caller: it can be asked about. That alone approves nothing. */
  wrote(repository: RepositoryName, caller: Caller, reference: Reference): void;
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

/**
 * For so long a caller without a login gets the same denial for the same question again: it costs the upstream several
 * requests, and anybody can ask.
 */
const DENIED_MS = 5000;
/** Denials that are remembered. */
const MAX_DENIALS = 10_000;

interface Denial {
  /** On the monotonic clock. */
  readonly at: number;
  readonly decision: Decision;
}

/** Whether the upstream refuses the login itself, and not only what it is used for. */
export const isLoginRefused = ({failure}: Denied): boolean =>
  failure instanceof UpstreamFailure && failure.status === 401;

/**
 * Whether the upstream is down, so that an earlier approval counts. A refusal in other words, a page that is not a registry's
 * answer, or a rate limit that the caller has used up is not an outage.
 */
function isOutage(error: unknown): boolean {
  if (!(error instanceof UpstreamFailure)) return false;
  const {kind, status} = error;
  if (kind === 'status') return status !== undefined && status >= 500;
  if (kind === 'token') return status === undefined || status >= 500;
  return kind === 'unreachable' || kind === 'timeout' || kind === 'open';
}

/** The list of tags is one thing, and all content another. The caller's key is a keyed hash of its login. */
const keyOf = (repository: RepositoryName, {key}: Caller, {kind}: Pick<Wanted, 'kind'>): string =>
  `${key} ${kind === 'tags' ? 'tags' : 'content'} ${repository}`;

const CONTENT = {kind: 'blob'} as const;
const TAGS = {kind: 'tags'} as const;

export const createApprovals = (parts: ApprovalsParts): Approvals => new UpstreamApprovals(parts);

class UpstreamApprovals implements Approvals {
  readonly #parts: ApprovalsParts;
  readonly #approved = createLru<string, Approval>(MAX_APPROVALS);
  /** When the upstream refused a caller's login: nothing counts that it was approved for before. */
  readonly #refused = createLru<string, number>(MAX_APPROVALS);
  /** When it accepted a caller's login. */
  readonly #logins = createLru<string, number>(MAX_APPROVALS);
  /** Not of callers with a login: one of theirs may end by what they push. */
  readonly #denials = createLru<string, Denial>(MAX_DENIALS);
  readonly #asking = createSingleFlight<Decision>();

  constructor(parts: ApprovalsParts) {
    this.#parts = parts;
  }

  async decide(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision> {
    const approval = this.#approvalOf(repository, caller, wanted);
    if (approval && this.#isWithin(approval.at, APPROVED_MS)) return ALLOWED;
    const key = `${keyOf(repository, caller, wanted)} ${JSON.stringify(wanted)}`;
    const denial = this.#denials.get(key);
    if (denial && this.#isWithin(denial.at, DENIED_MS)) return denial.decision;
    const at = this.#parts.clock.monotonic();
    try {
      const {value: decision} = await this.#asking.run(key, () => this.#ask(repository, caller, wanted));
      if (decision.verdict === 'denied' && !caller.login) this.#denials.set(key, {at, decision});
      return decision;
    } catch (error) {
      // Another request may have learned meanwhile that the approval has ended.
      const still = isOutage(error) ? this.#approvalOf(repository, caller, wanted) : undefined;
      if (still && this.#isWithin(still.at, this.#maxStale(repository, wanted))) return ALLOWED;
      throw error;
    }
  }

  has(repository: RepositoryName, caller: Caller): boolean {
    const approval = this.#approvalOf(repository, caller, CONTENT);
    return approval !== undefined && this.#isWithin(approval.at, APPROVED_MS);
  }

  async witness(repository: RepositoryName, caller: Caller, what: 'content' | 'tags'): Promise<void> {
    const approval = this.#approvalOf(repository, caller, what === 'tags' ? TAGS : CONTENT);
    if (approval && this.#isWithin(approval.at, WITNESSED_MS)) return;
    const decision = approval && (await this.#askAgain(repository, caller, approval.by));
    if (decision?.verdict === 'allowed') return;
    const {host} = this.#parts.upstream;
    throw new UpstreamFailure('denied', host, `does not show this caller the ${what} of ${repository} now`);
  }

  wrote(repository: RepositoryName, caller: Caller, reference: Reference): void {
    if (this.#approvalOf(repository, caller, CONTENT)) return;
    const by: Wanted = {kind: 'manifest', reference};
    this.#approved.set(keyOf(repository, caller, by), {at: Number.NEGATIVE_INFINITY, by});
  }

  async login(caller: Caller): Promise<LoginAnswer> {
    const acceptedAt = this.#logins.get(caller.key);
    if (acceptedAt !== undefined && this.#isWithin(acceptedAt, APPROVED_MS)) return 'accepted';
    const at = this.#parts.clock.monotonic();
    try {
      await this.#parts.upstream.checkLogin(caller);
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
      if (error.kind !== 'denied') return 'unasked';
      this.#refuse(caller, error);
      return 'refused';
    }
    this.#logins.set(caller.key, at);
    return 'accepted';
  }

  #approvalOf(
    repository: RepositoryName,
    caller: Caller,
    wanted: Pick<Wanted, 'kind'>,
  ): Approval | undefined {
    const approval = this.#approved.get(keyOf(repository, caller, wanted));
    const refusedAt = this.#refused.get(caller.key);
    const isEnded = approval && refusedAt !== undefined && approval.at <= refusedAt;
    return isEnded ? undefined : approval;
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

  /** Asks about what is wanted. Where that is not shown, what was shown before decides whether the approval goes on. */
  async #ask(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision> {
    const decision = await this.#askAgain(repository, caller, wanted);
    const before = this.#approvalOf(repository, caller, wanted);
    if (decision.verdict === 'allowed' || !before) return decision;
    try {
      const again = await this.#askAgain(repository, caller, before.by);
      // What is not there any more may be here, for those who may still pull from the repository.
      return decision.verdict === 'unknown' ? again : decision;
    } catch (error) {
      if (error instanceof UpstreamFailure) return decision;
      throw error;
    }
  }

  async #askAgain(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<Decision> {
    const key = keyOf(repository, caller, wanted);
    const at = this.#parts.clock.monotonic();
    let decision: Decision;
    try {
      if (await this.#isShown(repository, caller, wanted)) {
        this.#approved.set(key, {at, by: wanted});
        return ALLOWED;
      }
      decision = UNKNOWN;
    } catch (error) {
      if (!(error instanceof UpstreamFailure && error.kind === 'denied')) throw error;
      this.#refuse(caller, error);
      decision = {verdict: 'denied', failure: error, reason: undefined};
    }
    const approval = this.#approved.get(key);
    if (approval && isSame(approval.by, wanted)) this.#approved.delete(key);
    return decision;
  }

  #refuse({key, login}: Caller, failure: UpstreamFailure): void {
    if (!login || failure.status !== 401) return;
    this.#logins.delete(key);
    this.#refused.set(key, this.#parts.clock.monotonic());
  }

  async #isShown(repository: RepositoryName, caller: Caller, wanted: Wanted): Promise<boolean> {
    const {upstream} = this.#parts;
    const isThere = async (reference: Reference) =>
      (await upstream.headManifest(repository, reference, caller)) !== undefined;
    switch (wanted.kind) {
      case 'manifest': {
        const {reference} = wanted;
        if (await isThere(reference)) return true;
        // A fallback tag is synthesized for its subject.
        const subject = isDigestReference(reference) ? undefined : subjectPrefix(reference);
        return subject !== undefined && isDigest(subject) && isThere(subject);
      }
      case 'referrers': {
        if (await isThere(wanted.subject)) return true;
        // A signature may be pushed before its image.
        const listed = await upstream.listReferrers(repository, wanted.subject, caller);
        return typeof listed !== 'string' && listed.descriptors.length > 0;
      }
      case 'blob':
        return (await upstream.headBlob(repository, wanted.digest, caller)) !== undefined;
      case 'tags':
        return upstream.hasTags(repository, caller);
    }
  }
}

const isSame = (one: Wanted, other: Wanted): boolean => JSON.stringify(one) === JSON.stringify(other);
