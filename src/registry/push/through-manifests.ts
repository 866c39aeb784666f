import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import {type Change, fullReference, type ManifestRecord, type Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure, UpstreamRefusal} from '../../upstream/port.ts';
import type {Access} from '../access.ts';
import type {FallbackEntries} from '../fallback-tag/follow.ts';
import type {Reconciler} from '../fallback-tag/reconciler.ts';
import {createKeyedMutex} from '../keyed.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';
import type {Capabilities} from '../referrers/discovery.ts';
import type {ReferrerLists} from '../referrers/lists.ts';
import {manifestPut} from '../stored-manifest.ts';
import type {TagLists} from '../tags/tag-lists.ts';
import type {Tags} from '../tags/tags.ts';
import {refuseLargeImage} from './content-limits.ts';
import {MANIFEST_CODES, storedUnderOtherDigest, toThroughErrors} from './errors.ts';
import {requirePush} from './permission.ts';
import type {ManifestReceipt, Push, PushedManifest} from './push.ts';
import {writerOf} from './through-sessions.ts';
import {type CheckedManifest, checkManifest} from './validate.ts';

/** Manifests that are written to the upstream, and are known here from then on as if they had been pulled. */
export interface ThroughManifests {
  put: Push['putManifest'];
  delete: Push['deleteManifest'];
}

export interface ThroughManifestsParts {
  metadata: Metadata;
  access: Access;
  pull: ManifestPull;
  tags: Tags;
  tagLists: TagLists;
  capabilities: Capabilities;
  entries: FallbackEntries;
  lists: ReferrerLists;
  reconciler: Reconciler;
  memory: Memory;
  clock: Clock;
}

/** A manifest that the upstream has stored. */
interface Stored {
  readonly manifest: CheckedManifest;
  /** The tags that it has at the upstream. */
  readonly tags: readonly Tag[];
  /** The subject whose fallback tag we have to add it to. */
  readonly pendingSubject: Digest | undefined;
}

export const createThroughManifests = (parts: ThroughManifestsParts): ThroughManifests =>
  new UpstreamManifests(parts);

class UpstreamManifests implements ThroughManifests {
  readonly #parts: ThroughManifestsParts;
  readonly #mutex = createKeyedMutex();
  #lastChange = 0;

  constructor(parts: ThroughManifestsParts) {
    this.#parts = parts;
  }

  put(route: Route, reference: Reference, pushed: PushedManifest, caller: Caller): Promise<ManifestReceipt> {
    return toThroughErrors(route, MANIFEST_CODES, async () => {
      const stored = await this.#store(route, reference, pushed, caller);
      const {digest, edge} = stored.manifest;
      if (stored.pendingSubject) await this.#parts.reconciler.settle(route, stored.pendingSubject, caller);
      await this.#followEntries(route, stored, caller);
      const isListed = route.registry.referrers.mode !== 'off';
      return {
        digest,
        subject: isListed ? edge?.subject : undefined,
        tags: pushed.tags.filter((tag) => stored.tags.includes(tag)),
      };
    });
  }

  delete(route: Route, reference: Reference, caller: Caller): Promise<void> {
    return toThroughErrors(route, MANIFEST_CODES, () =>
      this.#exclusively(route, [reference], () =>
        isDigestReference(reference)
          ? this.#deleteByDigest(route, reference, caller)
          : this.#deleteTag(route, reference, caller),
      ),
    );
  }

  async #store(route: Route, reference: Reference, pushed: PushedManifest, caller: Caller): Promise<Stored> {
    const checked = checkManifest(reference, pushed);
    await refuseLargeImage(route, checked, this.#parts.metadata);
    const {mediaType, bytes} = checked;
    const ownTags = isDigestReference(reference) ? [] : [reference];
    const furtherTags = pushed.tags.filter((tag) => tag !== reference);
    requirePush(this.#parts.access, route, checked, [...ownTags, ...furtherTags], caller);
    return this.#exclusively(route, [checked.digest, ...ownTags, ...furtherTags], async () => {
      const body = {mediaType, bytes, tags: furtherTags};
      const answer = await writerOf(route).putManifest(route.repository.name, reference, body, caller);
      const manifest = await withUpstreamDigest(route, reference, checked, answer.digest, caller);
      const tagsSet = await putFurtherTags(route, manifest, furtherTags, answer.tags, caller);
      const pendingSubject = this.#keepsFallbackTag(route) ? manifest.edge?.subject : undefined;
      const stored = {manifest, tags: [...ownTags, ...tagsSet], pendingSubject};
      await this.#commit(route, stored);
      return stored;
    });
  }

  async #commit(route: Route, {manifest, tags, pendingSubject}: Stored): Promise<void> {
    const {metadata, memory, lists, tagLists, clock} = this.#parts;
    const {repository} = route;
    const {digest, mediaType, bytes, facts, edge} = manifest;
    const origin = 'upstream' as const;
    const at = clock.now();
    const changes: Change[] = [
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at}),
      // A local tag, from a time when the registry was an overlay, would hide the upstream's.
      ...tags.map((name): Change => ({type: 'tag.delete', repository, name, origin: 'local'})),
      ...tags.map((name): Change => ({type: 'tag.put', repository, name, digest, origin, at})),
      ...(pendingSubject ? [this.#journalEntry(route, pendingSubject, digest, 'add')] : []),
    ];
    await this.#parts.tags.write(route, [digest, ...tags], async () => void (await metadata.commit(changes)));
    memory.keepManifest(repository, {digest, mediaType, bytes, origin, linkedAt: at});
    lists.pushed(route, digest);
    if (tags.length > 0) await tagLists.changed(route, {put: tags, deleted: []});
  }

  async #deleteByDigest(route: Route, digest: Digest, caller: Caller): Promise<void> {
    const {metadata, memory, lists, tagLists, reconciler} = this.#parts;
    const {repository} = route;
    const record = await this.#recordOf(route, digest, caller);
    const subject = this.#keepsFallbackTag(route) && record ? edgeOf(record)?.subject : undefined;
    const refusal = await deleteUpstream(route, digest, caller);
    lists.deleted(route, digest);
    await this.#parts.tags.write(route, [digest], async () => {
      await metadata.commit([
        {type: 'manifest.delete', repository, digest},
        ...(subject ? [this.#journalEntry(route, subject, digest, 'remove')] : []),
      ]);
    });
    memory.forgetManifest(repository, digest);
    await tagLists.changed(route, {put: [], deleted: []});
    if (subject) await reconciler.settle(route, subject, caller);
    if (refusal) throw refusal;
  }

  async #deleteTag(route: Route, tag: Tag, caller: Caller): Promise<void> {
    const {metadata, tagLists} = this.#parts;
    const {repository} = route;
    const refusal = await deleteUpstream(route, tag, caller);
    await this.#parts.tags.write(route, [tag], async () => {
      await metadata.commit([
        {type: 'tag.delete', repository, name: tag, origin: 'upstream'},
        {type: 'tag.delete', repository, name: tag, origin: 'local'},
      ]);
    });
    await tagLists.changed(route, {put: [], deleted: [tag]});
    this.#reconcile(route, await this.#parts.entries.subjectsOf(route, tag), caller);
    if (refusal) throw refusal;
  }

  /** Writes to one reference reach the upstream and the metadata in the same order. */
  #exclusively<T>(route: Route, references: readonly Reference[], work: () => Promise<T>): Promise<T> {
    const [first, ...others] = [...references].sort();
    if (first === undefined) return work();
    const next = () => this.#exclusively(route, others, work);
    return this.#mutex.run(fullReference(route.repository, first), next);
  }

  /** Whether we maintain the fallback tags: the upstream is not known to have a Referrers API. */
  #keepsFallbackTag(route: Route): boolean {
    const {mode} = route.registry.referrers;
    if (mode === 'tag') return true;
    return mode === 'auto' && this.#parts.capabilities.of(route) !== 'supported';
  }

  #journalEntry({repository}: Route, subject: Digest, digest: Digest, change: 'add' | 'remove'): Change {
    // Entries for one referrer are distinguished by this time.
    this.#lastChange = Math.max(this.#lastChange + 1, this.#parts.clock.now());
    const at = this.#lastChange;
    return {type: 'tag-journal.put', entry: {repository, subject, digest, change, at, writtenAt: undefined}};
  }

  /** A client that writes a fallback tag itself: its entries join the index, and our own entries are checked. */
  async #followEntries(route: Route, {manifest, tags}: Stored, caller: Caller): Promise<void> {
    this.#reconcile(route, await this.#parts.entries.follow(route, tags, manifest, caller), caller);
  }

  #reconcile(route: Route, subjects: readonly Digest[], caller: Caller): void {
    for (const subject of subjects) this.#parts.reconciler.lookAgain(route, subject, caller);
  }

  /** The manifest, for its subject. One that cannot be fetched can still be deleted. */
  async #recordOf(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    try {
      return (await this.#parts.pull.localOrByDigest(route, digest, caller)).value;
    } catch (error) {
      if (error instanceof UpstreamFailure) return undefined;
      throw error;
    }
  }
}

/**
 * The manifest under the digest that the upstream knows: ours, unless the upstream named a digest of another algorithm
 * and does not know ours.
 * @throws OciError DIGEST_INVALID when the client pushed by a digest that the upstream does not know afterwards
 */
async function withUpstreamDigest(
  route: Route,
  reference: Reference,
  manifest: CheckedManifest,
  named: Digest | undefined,
  caller: Caller,
): Promise<CheckedManifest> {
  const {digest, mediaType, bytes} = manifest;
  if (named === undefined || named === digest) return manifest;
  const {upstream} = route.registry;
  if (await upstream.headManifest(route.repository.name, digest, caller)) return manifest;
  if (isDigestReference(reference)) {
    throw storedUnderOtherDigest(route, 'manifest', {expected: digest, actual: named});
  }
  return {...manifest, digest: named, edge: edgeOf({digest: named, mediaType, bytes})};
}

/** Puts the tags that the upstream did not confirm again, one by one. @returns those that were set */
async function putFurtherTags(
  route: Route,
  {mediaType, bytes}: CheckedManifest,
  wanted: readonly Tag[],
  confirmed: readonly Tag[],
  caller: Caller,
): Promise<Tag[]> {
  const isSet = await Promise.all(
    wanted.map(async (tag) => {
      if (confirmed.includes(tag)) return true;
      try {
        await writerOf(route).putManifest(route.repository.name, tag, {mediaType, bytes}, caller);
        return true;
      } catch (error) {
        // dist-spec, OCI-Tag: it names only those that were set, so the client learns which failed.
        if (error instanceof UpstreamFailure) return false;
        throw error;
      }
    }),
  );
  return wanted.filter((_, index) => isSet[index]);
}

/** @returns the refusal of an upstream that no longer has it: it is then deleted here, and the client gets the refusal */
async function deleteUpstream(
  route: Route,
  reference: Reference,
  caller: Caller,
): Promise<UpstreamRefusal | undefined> {
  try {
    await writerOf(route).deleteManifest(route.repository.name, reference, caller);
    return undefined;
  } catch (error) {
    if (error instanceof UpstreamRefusal && error.status === 404) return error;
    throw error;
  }
}
