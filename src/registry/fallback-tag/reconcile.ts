import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import type {FallbackIndex} from '../../oci/fallback-index.ts';
import {edgeOf} from '../../oci/referrers.ts';
import type {Claim, Coordination} from '../../storage/coordination.ts';
import {type Change, fullReference, type Metadata, type PendingTagChange} from '../../storage/metadata.ts';
import type {UpstreamWriter} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';
import type {Capabilities, Discovery} from '../referrers/discovery.ts';
import {LASTING_AFTER_MS} from './schedule.ts';
import type {FallbackTagStore} from './upstream-tag.ts';
import {updateFallbackTag} from './write-protocol.ts';

/** The state of a subject's changes after they were reconciled. */
export interface Reconciled {
  /** Changes that the tag was not seen to have. */
  pending: number;
  /** Of the changes that the tag has but may still lose: since when it was seen to have each. */
  writtenAt: number[];
  /** When the oldest of all of them was made; undefined when there are none. */
  since?: number | undefined;
}

/** Brings a subject's fallback tag into line with the journal: one update for all changes that are pending. */
export interface Reconcile {
  /**
   * @param caller as whom the upstream is asked and written to
   * @throws UpstreamFailure when the upstream could not be asked, or refuses
   */
  run(route: Route, writer: UpstreamWriter, subject: Digest, caller: Caller): Promise<Reconciled>;
}

export interface ReconcileParts {
  metadata: Metadata;
  capabilities: Capabilities;
  discovery: Discovery;
  pull: ManifestPull;
  upstreamTags: FallbackTagStore;
  /** Among all processes that share the metadata. */
  coordination: Coordination;
  clock: Clock;
  events: Events;
}

/** After this time without a renewal, another process takes the subject over. */
const CLAIM_MS = 30_000;

interface Subject {
  route: Route;
  subject: Digest;
  caller: Caller;
}

export const createReconcile = (parts: ReconcileParts): Reconcile => new JournalReconcile(parts);

class JournalReconcile implements Reconcile {
  readonly #parts: ReconcileParts;

  constructor(parts: ReconcileParts) {
    this.#parts = parts;
  }

  async run(route: Route, writer: UpstreamWriter, subject: Digest, caller: Caller): Promise<Reconciled> {
    const rows = await this.#journal({route, subject});
    if (rows.length === 0) return recorded(rows);
    const key = `fallback-tag ${fullReference(route.repository, subject)}`;
    const claim = await this.#parts.coordination.claim(key, CLAIM_MS);
    if (!claim.mine) return {...recorded(rows), pending: rows.length};
    try {
      return {...(await this.#update({route, subject, caller}, writer, claim)), since: rows[0]?.at};
    } finally {
      await claim.release();
    }
  }

  async #update(of: Subject, writer: UpstreamWriter, claim: Claim): Promise<Reconciled> {
    const {upstreamTags, events} = this.#parts;
    const rows = await this.#unlisted(of, await this.#journal(of));
    if (rows.length === 0) return recorded(rows);
    const tag = upstreamTags.open({...of, writer, mayWrite: () => claim.renew()});
    const update = await updateFallbackTag(tag, (index) => this.#withChanges(of, index, rows));
    if (update.outcome === 'not-an-index') return {...recorded(rows), pending: rows.length};
    const missing = rows.filter((row) => !isMade(row, update.before.entries));
    if (update.outcome === 'unconfirmed') return {...recorded(rows), pending: missing.length};
    const journal = await this.#journal(of);
    // A push or a deletion may have replaced a change meanwhile.
    const current = rows.filter((row) => isAmong(journal, row));
    if (update.outcome === 'unchanged') return this.#record(current, update.before);
    const {repository} = of.route;
    events.emit('referrers.tag-written', {...repository, subject: of.subject, changes: missing.length});
    return this.#record(current, update.after, missing);
  }

  async #journal({route, subject}: Omit<Subject, 'caller'>): Promise<PendingTagChange[]> {
    const rows = await this.#parts.metadata.tagJournal(route.repository, subject);
    return rows.sort((one, other) => one.at - other.at);
  }

  /** Drops the changes that the upstream's own Referrers API shows as made: the tag does not need them. */
  async #unlisted({route, subject, caller}: Subject, rows: PendingTagChange[]): Promise<PendingTagChange[]> {
    const {capabilities, discovery} = this.#parts;
    if (route.registry.referrers.mode === 'tag' || capabilities.of(route) === 'unsupported') return rows;
    const listed = await discovery.byApi(route, subject, caller);
    if (!listed) return rows;
    const digests = new Set<string>(listed.descriptors.map(({digest}) => digest));
    const made = rows.filter((row) => isMade(row, digests));
    await this.#commit(made.map((entry) => ({type: 'tag-journal.delete', entry})));
    return rows.filter((row) => !made.includes(row));
  }

  /** The entries that the tag should have. A change is dropped when its manifest no longer exists. */
  async #withChanges(
    {route, subject, caller}: Subject,
    index: FallbackIndex,
    rows: PendingTagChange[],
  ): Promise<Map<string, string>> {
    const {pull} = this.#parts;
    const entries = new Map(index.entries);
    for (const entry of rows) {
      const {digest, change} = entry;
      if (change === 'remove') {
        entries.delete(digest);
        continue;
      }
      if (entries.has(digest)) continue;
      const {value: record} = await pull.localOrByDigest(route, digest, caller);
      const edge = record && edgeOf(record);
      if (edge?.subject === subject) entries.set(digest, JSON.stringify(edge.descriptor));
      else await this.#commit([{type: 'tag-journal.delete', entry}]);
    }
    return entries;
  }

  /**
   * Records which changes the tag has. A change is dropped from the journal when the tag still has it
   * `LASTING_AFTER_MS` after it first had it.
   * @param written the rows that the tag had lost or never had: their time begins now
   */
  async #record(
    rows: PendingTagChange[],
    index: FallbackIndex,
    written: readonly PendingTagChange[] = [],
  ): Promise<Reconciled> {
    const now = this.#parts.clock.now();
    const result: Reconciled = {pending: 0, writtenAt: []};
    const madeSince = (entry: PendingTagChange): number | undefined => {
      if (!isMade(entry, index.entries)) return undefined;
      // The minimum, because the clock may have been set back: the tag is watched all the same.
      return isAmong(written, entry) ? now : Math.min(entry.writtenAt ?? now, now);
    };
    const changes = rows.flatMap((entry): Change[] => {
      const since = madeSince(entry);
      if (since !== undefined && now - since >= LASTING_AFTER_MS)
        return [{type: 'tag-journal.delete', entry}];
      if (since === undefined) result.pending += 1;
      else result.writtenAt.push(since);
      return since === entry.writtenAt ? [] : [{type: 'tag-journal.written', entry, writtenAt: since}];
    });
    await this.#commit(changes);
    return result;
  }

  async #commit(changes: Change[]): Promise<void> {
    if (changes.length > 0) await this.#parts.metadata.commit(changes);
  }
}

/** What the journal says itself. */
const recorded = (rows: PendingTagChange[]): Reconciled => ({
  pending: rows.filter(({writtenAt}) => writtenAt === undefined).length,
  writtenAt: rows.flatMap(({writtenAt}) => writtenAt ?? []),
});

const isAmong = (rows: readonly PendingTagChange[], {digest, at}: PendingTagChange): boolean =>
  rows.some((row) => row.digest === digest && row.at === at);

/** Whether a list that names these digests is as the change wants it. */
const isMade = ({digest, change}: PendingTagChange, named: {has(digest: string): boolean}): boolean =>
  named.has(digest) === (change === 'add');
