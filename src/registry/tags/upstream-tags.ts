import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import {
  type Change,
  fullReference,
  type Metadata,
  type RepositoryKey,
  type TagRecord,
} from '../../storage/metadata.ts';
import type {ManifestHead} from '../../upstream/port.ts';
import {isLater} from '../freshness.ts';
import type {Generations} from '../generations.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';
import {storeIfSpace} from '../store-if-space.ts';
import type {WriteFence} from '../write-fence.ts';

/** What the upstream says of a tag; undefined where it has none. */
export type TagAnswer = {digest: Digest; head: ManifestHead | undefined} | undefined;

/** A tag that somebody asks for. */
export interface AskedTag {
  readonly route: Route;
  readonly tag: Tag;
  readonly caller: Caller;
}

export interface UpstreamTagsParts {
  metadata: Metadata;
  pull: ManifestPull;
  writeFence: WriteFence;
  /** Learn of what changes outside of the metadata. */
  generations: Pick<Generations, 'endRepository'>;
  clock: Clock;
  events: Events;
}

/** Asks the upstream what a tag points at, and keeps the answer. */
export interface UpstreamTags {
  readonly pending: PendingTags;
  /**
   * @param record the tag as the metadata has it
   * @throws UpstreamFailure
   */
  ask(asked: AskedTag, record: TagRecord | undefined): Promise<TagAnswer>;
  /** Moves the tag, unless the answer to a question after `askedAt` (milliseconds since the epoch) is known. */
  point(route: Route, tag: Tag, digest: Digest, askedAt: number): Promise<void>;
}

export const createUpstreamTags = (parts: UpstreamTagsParts): UpstreamTags => new AskedUpstreamTags(parts);

class AskedUpstreamTags implements UpstreamTags {
  readonly pending: PendingTags = createPendingTags();
  readonly #metadata: Metadata;
  readonly #pull: ManifestPull;
  readonly #writeFence: WriteFence;
  readonly #generations: UpstreamTagsParts['generations'];
  readonly #clock: Clock;
  readonly #events: Events;

  constructor({metadata, pull, writeFence, generations, clock, events}: UpstreamTagsParts) {
    this.#metadata = metadata;
    this.#pull = pull;
    this.#writeFence = writeFence;
    this.#generations = generations;
    this.#clock = clock;
    this.#events = events;
  }

  /** One HEAD. Where it names no digest that compares with ours, one GET, which is hashed. */
  async ask(question: AskedTag, record: TagRecord | undefined): Promise<TagAnswer> {
    const {route, tag, caller} = question;
    const {repository} = route;
    const asked = this.#writeFence.current();
    const askedAt = this.#clock.now();
    const head = await route.registry.upstream.headManifest(repository.name, tag, caller);
    if (this.#writeFence.isStale(route, tag, asked)) return this.#written(route, tag);
    const later = await this.#laterAnswer(route, tag, askedAt);
    if (later) return later.answer;
    if (!head) {
      this.pending.delete(repository, tag);
      const gone = {type: 'tag.gone' as const, repository, name: tag, at: askedAt};
      if (record) await this.#commit(route, tag, askedAt, 'that a tag is gone', gone);
      return undefined;
    }
    const {digest} = head;
    if (!digest || (record && algorithmOf(digest) !== algorithmOf(record.digest))) {
      const algorithm = record ? algorithmOf(record.digest) : undefined;
      const {value} = await this.#pull.byTag(route, tag, caller, algorithm);
      return value && {digest: value.digest, head: undefined};
    }
    const isHere = digest === record?.digest || (await this.#metadata.manifest(repository, digest));
    if (this.#writeFence.isStale(route, tag, asked)) return this.#written(route, tag);
    if (isHere) {
      await this.point(route, tag, digest, askedAt);
      return {digest, head: undefined};
    }
    this.#generations.endRepository(repository);
    this.pending.add(repository, tag, {...head, digest}, askedAt);
    return {digest, head};
  }

  /** What was written through us while the upstream's answer was on its way. */
  async #written(route: Route, tag: Tag): Promise<TagAnswer> {
    await this.#writeFence.idle(route, tag);
    const record = await this.#metadata.tag(route.repository, tag);
    return record && {digest: record.digest, head: undefined};
  }

  /** What the upstream answered to a later question, where that answer came first. */
  async #laterAnswer(
    {repository}: Route,
    tag: Tag,
    askedAt: number,
  ): Promise<{answer: TagAnswer} | undefined> {
    const now = this.#clock.now();
    const record = await this.#metadata.tag(repository, tag);
    const pending = this.pending.find(repository, tag, record, now);
    if (pending && isLater(pending, askedAt, now))
      return {answer: {digest: pending.head.digest, head: pending.head}};
    if (!record || !isLater(record, askedAt, now)) return undefined;
    return {answer: record.goneAt === undefined ? {digest: record.digest, head: undefined} : undefined};
  }

  async point(route: Route, tag: Tag, digest: Digest, askedAt: number): Promise<void> {
    const {repository} = route;
    this.pending.delete(repository, tag);
    await this.#commit(route, tag, askedAt, 'where a tag points', {
      type: 'tag.put',
      repository,
      name: tag,
      digest,
      origin: 'upstream',
      at: askedAt,
    });
  }

  /** Commits what the upstream answered about a tag, unless the answer to a later question is known. */
  async #commit({repository}: Route, tag: Tag, askedAt: number, what: string, change: Change): Promise<void> {
    const now = this.#clock.now();
    const latest = {type: 'tag.latest' as const, repository, name: tag, askedAt, now};
    await storeIfSpace(this.#events, what, () => this.#metadata.commit([change], [latest]));
  }
}

/** A tag that a HEAD saw move to a manifest that is not here. It moves here when the manifest arrives. */
export interface PendingTag {
  readonly head: ManifestHead & {digest: Digest};
  readonly checkedAt: number;
  readonly tag: Tag;
  /** The full reference of the manifest. */
  readonly manifest: string;
}

export interface PendingTags {
  add(repository: RepositoryKey, tag: Tag, head: PendingTag['head'], checkedAt: number): void;
  has(repository: RepositoryKey, tag: Tag): boolean;
  /**
   * @param record the tag in the metadata. One with a later answer wins: `backref index` writes it without asking here.
   * @param now milliseconds since the epoch
   */
  find(
    repository: RepositoryKey,
    tag: Tag,
    record: TagRecord | undefined,
    now: number,
  ): PendingTag | undefined;
  delete(repository: RepositoryKey, tag: Tag): void;
  /** The tags that wait for a manifest. */
  waitingFor(repository: RepositoryKey, digest: Digest): Tag[];
}

const MAX_PENDING = 10_000;

function createPendingTags(): PendingTags {
  /** Tags by the manifest that they wait for: in all, as many as are pending. */
  const waiting = new Map<string, Set<Tag>>();
  const pending = createLru<string, PendingTag>(MAX_PENDING, {
    dispose({manifest, tag}) {
      const tags = waiting.get(manifest);
      tags?.delete(tag);
      if (tags?.size === 0) waiting.delete(manifest);
    },
  });
  return {
    add(repository, tag, head, checkedAt) {
      const manifest = fullReference(repository, head.digest);
      pending.set(fullReference(repository, tag), {head, checkedAt, tag, manifest});
      waiting.set(manifest, (waiting.get(manifest) ?? new Set()).add(tag));
    },
    has: (repository, tag) => pending.has(fullReference(repository, tag)),
    find(repository, tag, record, now) {
      const found = pending.get(fullReference(repository, tag));
      return found && record && isLater(record, found.checkedAt, now) ? undefined : found;
    },
    delete: (repository, tag) => void pending.delete(fullReference(repository, tag)),
    waitingFor: (repository, digest) => [...(waiting.get(fullReference(repository, digest)) ?? [])],
  };
}
