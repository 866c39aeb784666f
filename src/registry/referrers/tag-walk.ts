import {setImmediate as nextTurn} from 'node:timers/promises';
import {ANONYMOUS} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import {isTag, type Tag} from '../../oci/name.ts';
import type {Change, ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {type Aging, freshness} from '../freshness.ts';
import type {Route} from '../namespace.ts';
import {keptIn, type ManifestPull} from '../pull/manifest.ts';
import type {TagLists} from '../tags/tag-lists.ts';
import type {WriteFence} from '../write-fence.ts';

/** From the tags of a repository to all manifests that they lead to. */
export interface TagWalk {
  /**
   * The upstream's tags: first those that were never seen here, then those that were checked longest ago.
   * @throws OciError NAME_UNKNOWN when the upstream has no such repository; UpstreamFailure
   */
  tags(): Promise<Tag[]>;
  /** Brings in the tag's manifest and, of an index, its children. Gone ones are no failure. @throws UpstreamFailure */
  follow(tag: Tag): Promise<void>;
}

export interface TagWalkParts {
  metadata: Metadata;
  writes: WriteFence;
  tagLists: Pick<TagLists, 'renew'>;
  clock: Clock;
  pull: ManifestPull;
  route: Route;
  /** Called before each request to the upstream; what it throws keeps the request from being made. */
  spend(): void;
  /** Told of every manifest that is met, once. */
  met(record: ManifestRecord): void;
}

/** Of so many tags it is looked up when they were checked, before the requests that wait have their turn. */
const TAGS_PER_TURN = 100;

export function createTagWalk(parts: TagWalkParts): TagWalk {
  const {metadata, writes, tagLists, clock, pull, route, spend, met} = parts;
  const {registry, repository} = route;
  const {upstream, tags: policy} = registry;
  const caller = ANONYMOUS;
  const visited = new Set<Digest>();
  const isFresh = (known: Aging): boolean =>
    freshness({now: clock.now(), known, policy, upstream: 'unasked'}) === 'fresh';

  async function names(): Promise<readonly string[]> {
    const known = await metadata.tagList(repository);
    if (known && isFresh(known)) return known.names;
    const list = await tagLists.renew(route, caller, spend);
    if (!list) {
      throw new OciError('NAME_UNKNOWN', {message: `${upstream.host} has no repository ${repository.name}`});
    }
    return list;
  }

  /** Unless the answer to a later question is known. */
  async function commit(tag: Tag, askedAt: number, change: Change): Promise<void> {
    const latest = {type: 'tag.latest' as const, repository, name: tag, askedAt, now: clock.now()};
    await metadata.commit([change], [latest]);
  }

  async function manifestOf(tag: Tag): Promise<ManifestRecord | undefined> {
    const known = await metadata.tag(repository, tag);
    const here = known && (await metadata.manifest(repository, known.digest));
    // A tag that was pushed here says nothing of the upstream's.
    if (here && known.origin === 'upstream' && isFresh(known)) return here;
    spend();
    const asked = writes.current();
    const askedAt = clock.now();
    const head = await upstream.headManifest(repository.name, tag, caller);
    if (writes.isStale(route, tag, asked)) return here;
    if (!head) {
      if (known) await commit(tag, askedAt, {type: 'tag.gone', repository, name: tag, at: askedAt});
      return undefined;
    }
    const {digest} = head;
    const same = digest && (await metadata.manifest(repository, digest));
    if (same) {
      const put = {type: 'tag.put' as const, repository, name: tag, digest, origin: 'upstream' as const};
      await commit(tag, askedAt, {...put, at: askedAt});
      return same;
    }
    spend();
    return keptIn(await pull.byTag(route, tag, caller, known && algorithmOf(known.digest)));
  }

  async function child(digest: Digest): Promise<ManifestRecord | undefined> {
    // What is here is read on this thread: the requests that wait come first.
    await nextTurn();
    return keptIn(await pull.localOrByDigest(route, digest, caller, spend));
  }

  async function descend(record: ManifestRecord): Promise<void> {
    met(record);
    for (const {digest} of readManifest(record.bytes).manifests) {
      if (visited.has(digest)) continue;
      visited.add(digest);
      const found = await child(digest);
      if (found) await descend(found);
    }
  }

  return {
    async tags() {
      const aged: {tag: Tag; checkedAt: number}[] = [];
      for (const tag of (await names()).filter(isTag)) {
        if (aged.length % TAGS_PER_TURN === 0) await nextTurn();
        const known = await metadata.tag(repository, tag);
        aged.push({tag, checkedAt: known?.checkedAt ?? 0});
      }
      return aged.sort((one, other) => one.checkedAt - other.checkedAt).map(({tag}) => tag);
    },

    async follow(tag) {
      const record = await manifestOf(tag);
      if (!record || visited.has(record.digest)) return;
      visited.add(record.digest);
      await descend(record);
    },
  };
}
