import type {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {mapConcurrently} from '../../concurrency.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import {algorithmOf, type Digest, digestOf, isDigest} from '../../oci/digest.ts';
import {NO_ENTRIES, serializeFallbackIndex} from '../../oci/fallback-index.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {fallbackTag} from '../../oci/referrers.ts';
import {fullReference, type Metadata} from '../../storage/metadata.ts';
import {UpstreamRefusal, type UpstreamWriter} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {Tags} from '../tags/tags.ts';
import {type FallbackTag, readTagContent, type TagState} from './write-protocol.ts';

/** A subject whose fallback tag is written. */
export interface TagTarget {
  route: Route;
  writer: UpstreamWriter;
  subject: Digest;
  /** As whom the upstream is asked and written to. */
  caller: Caller;
  /** Called before each write. @returns false when another process may write the tag by now */
  mayWrite(): Promise<boolean>;
}

interface UpstreamTagState extends TagState {
  /** undefined: the tag does not exist. */
  readonly digest: Digest | undefined;
  readonly etag?: string | undefined;
}

/** The fallback tags of upstreams. */
export interface FallbackTagStore {
  /** @throws (its methods) UpstreamFailure when the upstream could not be asked, or refuses */
  open(target: TagTarget): FallbackTag<UpstreamTagState>;
}

export interface FallbackTagStoreParts {
  metadata: Metadata;
  tags: Tags;
  clock: Clock;
  events: Events;
}

/** How long after our write an answer with the replaced content counts as stale (one registry gave such answers for 5 s). */
const STALENESS_MS = 10_000;
const MAX_REMEMBERED = 10_000;
/** The codes with which registries refuse an index because they do not have one of its entries. */
const UNKNOWN_ENTRY = new Set<string | undefined>(['MANIFEST_BLOB_UNKNOWN', 'MANIFEST_UNKNOWN']);
/** A refused index with more entries than this is not checked entry by entry. */
const MAX_CHECKED = 1000;
const CONCURRENCY = 8;

export function createFallbackTagStore(parts: FallbackTagStoreParts): FallbackTagStore {
  const history: TagHistory = {
    replaced: createLru(MAX_REMEMBERED),
    unmatched: createLru(MAX_REMEMBERED),
  };
  return {open: (target) => new UpstreamTag(target, parts, history)};
}

/** What our writes have shown, by subject and digest of the content that they were to replace. */
interface TagHistory {
  /** When it was replaced, on the monotonic clock. */
  readonly replaced: LRUCache<string, number>;
  /** Content that could not be replaced with its own ETag in `If-Match`. */
  readonly unmatched: LRUCache<string, true>;
}

class UpstreamTag implements FallbackTag<UpstreamTagState> {
  readonly #target: TagTarget;
  readonly #parts: FallbackTagStoreParts;
  readonly #history: TagHistory;

  constructor(target: TagTarget, parts: FallbackTagStoreParts, history: TagHistory) {
    this.#target = target;
    this.#parts = parts;
    this.#history = history;
  }

  async read(): Promise<UpstreamTagState | undefined> {
    const {route, subject, caller} = this.#target;
    const {upstream} = route.registry;
    const tag = fallbackTag(subject);
    const body = await upstream.getManifest(route.repository.name, tag, caller, 'no-cache');
    if (!body) return {digest: undefined, index: NO_ENTRIES, isStale: this.#isStale(undefined)};
    const index = readTagContent(subject, body);
    if (typeof index === 'string') {
      const {repository} = route;
      this.#parts.events.emit('referrers.tag-unusable', {
        ...repository,
        host: upstream.host,
        tag,
        what: index,
      });
      return undefined;
    }
    const digest = digestOf(body.bytes, algorithmOf(subject));
    return {digest, index, etag: body.etag, isStale: this.#isStale(digest)};
  }

  async write(before: UpstreamTagState, entries: ReadonlyMap<string, string>): Promise<boolean> {
    try {
      return await this.#replace(before, serializeFallbackIndex(before.index, entries.values()));
    } catch (error) {
      const present = await withoutAbsent(this.#target, entries, error);
      return this.#replace(before, serializeFallbackIndex(before.index, present.values()));
    }
  }

  #isStale(digest: Digest | undefined): boolean {
    const at = this.#history.replaced.get(this.#keyOf(digest));
    return at !== undefined && this.#parts.clock.monotonic() - at < STALENESS_MS;
  }

  async #replace(before: UpstreamTagState, bytes: Buffer): Promise<boolean> {
    if (!(await this.#target.mayWrite())) return false;
    await this.#put(before, bytes);
    const {replaced} = this.#history;
    replaced.set(this.#keyOf(before.digest), this.#parts.clock.monotonic());
    replaced.delete(this.#keyOf(digestOf(bytes, algorithmOf(this.#target.subject))));
    await this.#forgetTag();
    return true;
  }

  async #put(before: UpstreamTagState, bytes: Buffer): Promise<void> {
    const {route, writer, subject, caller} = this.#target;
    const {unmatched} = this.#history;
    const key = this.#keyOf(before.digest);
    // An ETag that did not match unchanged content is useless, whatever its registry means by it.
    const ifMatch = unmatched.has(key) ? undefined : before.etag;
    try {
      const manifest = {mediaType: OCI_INDEX, bytes, ifMatch};
      await writer.putManifest(route.repository.name, fallbackTag(subject), manifest, caller);
    } catch (error) {
      if (error instanceof UpstreamRefusal && error.status === 412) unmatched.set(key, true);
      throw error;
    }
  }

  /** Makes clients that pull the tag by name see it as it is now: what is cached, or being asked for, is outdated. */
  async #forgetTag(): Promise<void> {
    const {route, subject} = this.#target;
    const {metadata, tags} = this.#parts;
    const {repository} = route;
    const name = fallbackTag(subject);
    await tags.write(route, [name], async () => {
      await metadata.commit([{type: 'tag.delete', repository, name, origin: 'upstream'}]);
    });
  }

  #keyOf(digest: Digest | undefined): string {
    const {route, subject} = this.#target;
    return `${fullReference(route.repository, subject)} ${digest ?? 'absent'}`;
  }
}

/**
 * Distribution refuses an index that names a manifest that it does not have. An entry that somebody left behind for a
 * deleted manifest would keep everybody's entries out of the tag from then on.
 * @param entries of the index that was refused, by digest
 * @returns those of them that the upstream has
 * @throws the refusal, when it had another reason
 */
async function withoutAbsent(
  {route: {registry, repository}, caller}: TagTarget,
  entries: ReadonlyMap<string, string>,
  refusal: unknown,
): Promise<ReadonlyMap<string, string>> {
  const isUnknownEntry = refusal instanceof UpstreamRefusal && UNKNOWN_ENTRY.has(refusal.code);
  if (!isUnknownEntry || entries.size > MAX_CHECKED) throw refusal;
  const present = new Map(entries);
  await mapConcurrently([...entries.keys()].filter(isDigest), CONCURRENCY, async (digest) => {
    const head = await registry.upstream.headManifest(repository.name, digest, caller);
    if (!head) present.delete(digest);
  });
  if (present.size === entries.size) throw refusal;
  return present;
}
