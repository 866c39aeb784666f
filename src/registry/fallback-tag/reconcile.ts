import {LRUCache} from 'lru-cache';
import {ANONYMOUS} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {
  type FallbackIndex,
  NO_ENTRIES,
  parseFallbackIndex,
  serializeFallbackIndex,
} from '../../oci/fallback-index.ts';
import {readManifest} from '../../oci/manifest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {edgeOf, fallbackTag} from '../../oci/referrers.ts';
import type {Coordination} from '../../storage/coordination.ts';
import type {Change, Metadata, OwedTagChange} from '../../storage/metadata.ts';
import {type ManifestBody, UpstreamRefusal, type UpstreamWriter} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';
import type {Capabilities, Discovery} from '../referrers/discovery.ts';
import type {Tags} from '../tags/tags.ts';
import {lessAbsent} from './absent-entries.ts';
import {SURE_AFTER} from './schedule.ts';

/** How things stand after a round. */
export interface RoundEnd {
  /** Changes that the tag was not seen to hold. */
  owed: number;
  /** Of the changes that it holds but may yet lose: since when it is seen to hold each. */
  writtenAt: number[];
  /** When the oldest of all of them was made; undefined when there was none. */
  since?: number | undefined;
}

/** One round of reading, writing and checking a subject's fallback tag: everything that is owed to it at once. */
export interface TagRounds {
  /** @throws UpstreamFailure when the upstream could not be asked, or refuses */
  run(route: Route, writer: UpstreamWriter, subject: Digest): Promise<RoundEnd>;
}

export interface TagRoundsParts {
  metadata: Metadata;
  capabilities: Capabilities;
  discovery: Discovery;
  pull: ManifestPull;
  tags: Tags;
  /** Among all processes that share the metadata. */
  coordination: Coordination;
  clock: Clock;
  events: Events;
  /** Names this process among those that share the metadata. */
  owner: string;
}

/** Milliseconds that a round may take until another process takes the subject over. */
const LEASE = 30_000;
/** No lease ends later than this from now, the clocks of processes being somewhat apart. */
const LONGEST_LEASE_MS = 2 * LEASE;
/** For so long after a write what stood there before is taken for a stale answer (a registry was seen to give one after 5 s). */
const STALENESS = 10_000;
const MAX_REPLACED = 10_000;

/** What stands under the tag. */
interface Reading {
  /** undefined: nothing. */
  digest: Digest | undefined;
  index: FallbackIndex;
  etag?: string | undefined;
}

/** One subject's round. */
interface Round {
  route: Route;
  writer: UpstreamWriter;
  subject: Digest;
  key: string;
}

export function createTagRounds({
  metadata,
  capabilities,
  discovery,
  pull,
  tags,
  clock,
  events,
  owner,
}: TagRoundsParts): TagRounds {
  /** What our own writes have replaced, by subject and digest, with the time. */
  const replaced = new LRUCache<string, number>({max: MAX_REPLACED});
  /** What could not be replaced by its validator, by the same. */
  const unmatched = new LRUCache<string, true>({max: MAX_REPLACED});
  const replacedKey = ({key}: Round, digest: Digest | undefined) => `${key} ${digest ?? 'nothing'}`;

  async function journal({route, subject}: Round): Promise<OwedTagChange[]> {
    const rows = await metadata.tagJournal(route.repository, subject);
    return rows.sort((one, other) => one.at - other.at);
  }

  /** Takes the lease, or what is left of it once more. */
  function lease({key}: Round): Promise<boolean> {
    const at = clock.now();
    return metadata.commit(
      [{type: 'lease.put', lease: {key, owner, until: at + LEASE}}],
      [{type: 'lease.free', key, owner, at, maxLifeMs: LONGEST_LEASE_MS}],
    );
  }

  /** Uncached. @returns undefined when what stands there is no list of referrers, and is to be left alone */
  async function read({route, subject}: Round): Promise<Reading | undefined> {
    const {registry, repository} = route;
    const tag = fallbackTag(subject);
    const body = await registry.upstream.getManifest(repository.name, tag, ANONYMOUS, 'no-cache');
    if (!body) return {digest: undefined, index: NO_ENTRIES};
    const digest = digestOf(body.bytes, algorithmOf(subject));
    const index = digest === subject || !isIndex(body) ? undefined : parseFallbackIndex(body.bytes);
    if (index) return {digest, index, etag: body.etag};
    const what = digest === subject ? 'the subject itself' : `${body.mediaType ?? 'something'} and no index`;
    events.emit('referrers.tag-unusable', {...repository, host: registry.upstream.host, tag, what});
    return undefined;
  }

  /** What the upstream's own API shows as it should be was the upstream's doing: the tag needs nothing of it. */
  async function lessListed({route, subject}: Round, rows: OwedTagChange[]): Promise<OwedTagChange[]> {
    if (route.registry.referrers.mode === 'tag' || capabilities.of(route) === 'unsupported') return rows;
    const listed = await discovery.byApi(route, subject, ANONYMOUS);
    if (!listed) return rows;
    const named = new Set<string>(listed.descriptors.map(({digest}) => digest));
    const done = rows.filter((row) => isMade(row, named));
    await commit(done.map((entry) => ({type: 'tag-journal.delete', entry})));
    return rows.filter((row) => !done.includes(row));
  }

  async function commit(changes: Change[]): Promise<void> {
    if (changes.length > 0) await metadata.commit(changes);
  }

  /** The entries that the tag is to have; what is owed for a manifest that is gone is owed no more. */
  async function withChanges(
    {route, subject}: Round,
    {index}: Reading,
    rows: OwedTagChange[],
  ): Promise<Map<string, string>> {
    const entries = new Map(index.entries);
    for (const entry of rows) {
      const {digest, change} = entry;
      if (change === 'remove') {
        entries.delete(digest);
        continue;
      }
      if (entries.has(digest)) continue;
      const here = await metadata.manifest(route.repository, digest);
      const record = here ?? (await pull.byDigest(route, digest, ANONYMOUS)).value;
      const edge = record && edgeOf(record);
      if (edge?.subject === subject) entries.set(digest, JSON.stringify(edge.descriptor));
      else await commit([{type: 'tag-journal.delete', entry}]);
    }
    return entries;
  }

  /**
   * A change is held for good when the tag still holds it so long after it first did.
   * @param lost those of the rows that the tag did not hold until just now: their time begins anew
   */
  async function note(
    rows: OwedTagChange[],
    {index}: Reading,
    lost: readonly OwedTagChange[] = [],
  ): Promise<RoundEnd> {
    const now = clock.now();
    const end: RoundEnd = {owed: 0, writtenAt: []};
    const heldSince = (entry: OwedTagChange): number | undefined => {
      if (!isMade(entry, index.entries)) return undefined;
      // A clock that was set back is no reason to look away until it has caught up.
      return isAmong(lost, entry) ? now : Math.min(entry.writtenAt ?? now, now);
    };
    const changes = rows.flatMap((entry): Change[] => {
      const since = heldSince(entry);
      if (since !== undefined && now - since >= SURE_AFTER) return [{type: 'tag-journal.delete', entry}];
      if (since === undefined) end.owed += 1;
      else end.writtenAt.push(since);
      return since === entry.writtenAt ? [] : [{type: 'tag-journal.written', entry, writtenAt: since}];
    });
    await commit(changes);
    return end;
  }

  const asBefore = (rows: OwedTagChange[]): RoundEnd => ({
    owed: rows.filter(({writtenAt}) => writtenAt === undefined).length,
    writtenAt: rows.flatMap(({writtenAt}) => writtenAt ?? []),
  });

  function looksStale(round: Round, {digest}: Reading): boolean {
    const at = replaced.get(replacedKey(round, digest));
    return at !== undefined && clock.monotonic() - at < STALENESS;
  }

  /** Who pulls the tag by itself is to see it as it is now, and not what was asked for before. */
  async function forgetTag({route, subject}: Round): Promise<void> {
    const {repository} = route;
    const name = fallbackTag(subject);
    await tags.write(route, [name], async () => {
      await metadata.commit([{type: 'tag.delete', repository, name, origin: 'upstream'}]);
    });
  }

  /** Puts it in the place of what was read. */
  async function put(round: Round, before: Reading, bytes: Buffer): Promise<void> {
    const {route, writer, subject} = round;
    const key = replacedKey(round, before.digest);
    // One that did not match what is still there says nothing, whatever its registry means by it.
    const ifMatch = unmatched.has(key) ? undefined : before.etag;
    const manifest = {mediaType: OCI_INDEX, bytes, ifMatch};
    try {
      await writer.putManifest(route.repository.name, fallbackTag(subject), manifest, ANONYMOUS);
    } catch (error) {
      if (error instanceof UpstreamRefusal && error.status === 412) unmatched.set(key, true);
      throw error;
    }
  }

  /** @returns false when the lease was lost */
  async function write(round: Round, before: Reading, bytes: Buffer): Promise<boolean> {
    const {subject} = round;
    if (!(await lease(round))) return false;
    await put(round, before, bytes);
    replaced.set(replacedKey(round, before.digest), clock.monotonic());
    replaced.delete(replacedKey(round, digestOf(bytes, algorithmOf(subject))));
    await forgetTag(round);
    return true;
  }

  /** Writes the entries, or as many as the upstream takes. @returns false when the lease was lost */
  async function writeEntries(
    round: Round,
    before: Reading,
    entries: ReadonlyMap<string, string>,
  ): Promise<boolean> {
    const {index} = before;
    try {
      return await write(round, before, serializeFallbackIndex(index, entries.values()));
    } catch (error) {
      const there = await lessAbsent(round.route, entries, error);
      return write(round, before, serializeFallbackIndex(index, there.values()));
    }
  }

  async function underLease(round: Round): Promise<RoundEnd> {
    const rows = await lessListed(round, await journal(round));
    if (rows.length === 0) return asBefore(rows);
    const before = await read(round);
    if (!before) return {...asBefore(rows), owed: rows.length};
    const missing = rows.filter((row) => !isMade(row, before.index.entries));
    if (missing.length === 0) return note(rows, before);
    if (looksStale(round, before)) return {...asBefore(rows), owed: missing.length};
    const entries = await withChanges(round, before, missing);
    if (sameKeys(entries, before.index.entries)) return note(await journalOf(round, rows), before);
    if (!(await writeEntries(round, before, entries))) return {...asBefore(rows), owed: missing.length};
    const after = await read(round);
    if (!after || looksStale(round, after)) return {...asBefore(rows), owed: missing.length};
    events.emit('referrers.tag-written', {
      ...round.route.repository,
      subject: round.subject,
      changes: missing.length,
    });
    return note(await journalOf(round, rows), after, missing);
  }

  /** Of these rows, those that are still in the journal as they were. */
  async function journalOf(round: Round, rows: OwedTagChange[]): Promise<OwedTagChange[]> {
    const present = await journal(round);
    return rows.filter((row) => isAmong(present, row));
  }

  return {
    async run(route, writer, subject) {
      const {registry, name} = route.repository;
      const round = {route, writer, subject, key: `fallback-tag ${registry}/${name}@${subject}`};
      const rows = await journal(round);
      if (rows.length === 0) return asBefore(rows);
      if (!(await lease(round))) return {...asBefore(rows), owed: rows.length};
      try {
        return {...(await underLease(round)), since: rows[0]?.at};
      } finally {
        await metadata.commit([{type: 'lease.delete', key: round.key, owner}]);
      }
    },
  };
}

const isIndex = ({bytes, mediaType}: ManifestBody): boolean =>
  (readManifest(bytes).mediaType ?? mediaType) === OCI_INDEX;

const sameKeys = (one: ReadonlyMap<string, unknown>, other: ReadonlyMap<string, unknown>): boolean =>
  one.size === other.size && one.keys().every((key) => other.has(key));

const isAmong = (rows: readonly OwedTagChange[], {digest, at}: OwedTagChange): boolean =>
  rows.some((row) => row.digest === digest && row.at === at);

/** Whether a list that names these digests is as the change would have it. */
const isMade = ({digest, change}: OwedTagChange, named: {has(digest: string): boolean}): boolean =>
  named.has(digest) === (change === 'add');
