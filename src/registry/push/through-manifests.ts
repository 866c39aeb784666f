import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {type Digest, isDigest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {edgeOf, subjectPrefix} from '../../oci/referrers.ts';
import type {Change, ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure, UpstreamRefusal} from '../../upstream/port.ts';
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
import {hearing, MANIFEST, writerOf} from './errors.ts';
import type {ManifestReceipt, Push, PushedManifest} from './push.ts';
import {type CheckedManifest, checkManifest, isFallbackIndex} from './validate.ts';

export interface ThroughManifestsParts {
  metadata: Metadata;
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

/** A manifest that the upstream took. */
interface Taken {
  manifest: CheckedManifest;
  /** The tags that it has there. */
  tags: readonly Tag[];
  /** The subject whose fallback tag is to name it. */
  owes: Digest | undefined;
}

/** Manifests that are written to the upstream, and known here from then on as if they had been pulled. */
export function createThroughManifests({
  metadata,
  pull,
  tags: allTags,
  tagLists,
  capabilities,
  entries,
  lists,
  reconciler,
  memory,
  clock,
}: ThroughManifestsParts): Pick<Push, 'putManifest' | 'deleteManifest'> {
  const mutex = createKeyedMutex();
  let lastChange = 0;

  /** Entries of the journal are told apart by it. */
  function nextChange(): number {
    lastChange = Math.max(lastChange + 1, clock.now());
    return lastChange;
  }

  /** What is written to one reference reaches upstream and metadata in the same order. */
  function inTurn<T>(route: Route, references: readonly Reference[], work: () => Promise<T>): Promise<T> {
    const [first, ...others] = [...references].sort();
    if (first === undefined) return work();
    const {registry, name} = route.repository;
    return mutex.run(`${registry}/${name}:${first}`, () => inTurn(route, others, work));
  }

  /** The subject's fallback tag is ours to keep where the upstream is not proven to have a Referrers API. */
  function owesTag(route: Route): boolean {
    const {mode} = route.registry.referrers;
    if (mode === 'tag') return true;
    return mode === 'auto' && capabilities.of(route) !== 'supported';
  }

  const owed = ({repository}: Route, subject: Digest, digest: Digest, change: 'add' | 'remove'): Change => ({
    type: 'tag-journal.put',
    entry: {repository, subject, digest, change, at: nextChange(), writtenAt: undefined},
  });

  /**
   * The digest that the upstream knows the manifest by: ours, unless it named one by another algorithm and does not
   * know ours.
   * @throws OciError DIGEST_INVALID for a reference that it does not know afterwards
   */
  async function agreed(
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
    if (isDigestReference(reference)) throw otherDigest(route, digest, named);
    return {...manifest, digest: named, edge: edgeOf({digest: named, mediaType, bytes})};
  }

  /** Puts what the upstream did not confirm in one request once more, tag by tag. Gives those that it has then. */
  async function furtherTags(
    route: Route,
    {mediaType, bytes}: CheckedManifest,
    wanted: readonly Tag[],
    confirmed: readonly Tag[],
    caller: Caller,
  ): Promise<Tag[]> {
    const set = await Promise.all(
      wanted.map(async (tag) => {
        if (confirmed.includes(tag)) return true;
        try {
          await writerOf(route).putManifest(route.repository.name, tag, {mediaType, bytes}, caller);
          return true;
        } catch (error) {
          // dist-spec, OCI-Tag: it names only those that were set, which tells the client enough.
          if (error instanceof UpstreamFailure) return false;
          throw error;
        }
      }),
    );
    return wanted.filter((_, index) => set[index]);
  }

  async function commit(route: Route, {manifest, tags, owes}: Taken): Promise<void> {
    const {repository} = route;
    const {digest, mediaType, bytes, facts, edge} = manifest;
    const origin = 'upstream' as const;
    const at = clock.now();
    const changes: Change[] = [
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at}),
      // One that was kept here while the registry was laid over its upstream would hide it.
      ...tags.map((name): Change => ({type: 'tag.delete', repository, name, origin: 'local'})),
      ...tags.map((name): Change => ({type: 'tag.put', repository, name, digest, origin, at})),
      ...(owes ? [owed(route, owes, digest, 'add')] : []),
    ];
    await allTags.write(route, [digest, ...tags], async () => void (await metadata.commit(changes)));
    memory.keepManifest(repository, {digest, mediaType, bytes, origin, linkedAt: at});
    lists.pushed(route, digest);
    if (tags.length > 0) await tagLists.changed(route, {put: tags, deleted: []});
  }

  /** The subjects whose fallback tag this is, as far as anything is known of them. */
  async function subjectsOf(route: Route, tag: Tag): Promise<Digest[]> {
    const prefix = subjectPrefix(tag);
    if (prefix === undefined || route.registry.referrers.mode === 'off') return [];
    return isDigest(prefix) ? [prefix] : metadata.referrerSubjects(route.repository, prefix);
  }

  /** A client that keeps a fallback tag itself: its entries join the index, and ours are looked after. */
  async function followEntries(route: Route, {manifest, tags}: Taken, caller: Caller): Promise<void> {
    if (!isFallbackIndex(manifest, tags)) return;
    const subjects = (await Promise.all(tags.map((tag) => subjectsOf(route, tag)))).flat();
    await entries.follow(route, subjects, manifest, caller);
    for (const subject of subjects) reconciler.lookAgain(route, subject);
  }

  /** The manifest, to know what it refers to; what cannot be had can be deleted all the same. */
  async function known(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    const here = await metadata.manifest(route.repository, digest);
    if (here) return here;
    try {
      return (await pull.byDigest(route, digest, caller)).value;
    } catch (error) {
      if (error instanceof UpstreamFailure) return undefined;
      throw error;
    }
  }

  /** @returns the refusal of an upstream that does not have it any more: then it goes here as well, all the same */
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

  async function deleteByDigest(route: Route, digest: Digest, caller: Caller): Promise<void> {
    const {repository} = route;
    const record = await known(route, digest, caller);
    const subject = owesTag(route) && record ? edgeOf(record)?.subject : undefined;
    const gone = await deleteUpstream(route, digest, caller);
    lists.deleted(route, digest);
    await allTags.write(route, [digest], async () => {
      await metadata.commit([
        {type: 'manifest.delete', repository, digest},
        ...(subject ? [owed(route, subject, digest, 'remove')] : []),
      ]);
    });
    memory.forgetManifest(repository, digest);
    await tagLists.changed(route, {put: [], deleted: []});
    if (subject) await reconciler.settle(route, subject);
    if (gone) throw gone;
  }

  async function deleteTag(route: Route, tag: Tag, caller: Caller): Promise<void> {
    const {repository} = route;
    const gone = await deleteUpstream(route, tag, caller);
    await allTags.write(route, [tag], async () => {
      await metadata.commit([
        {type: 'tag.delete', repository, name: tag, origin: 'upstream'},
        {type: 'tag.delete', repository, name: tag, origin: 'local'},
      ]);
    });
    await tagLists.changed(route, {put: [], deleted: [tag]});
    for (const subject of await subjectsOf(route, tag)) reconciler.lookAgain(route, subject);
    if (gone) throw gone;
  }

  async function put(
    route: Route,
    reference: Reference,
    pushed: PushedManifest,
    caller: Caller,
  ): Promise<Taken> {
    const checked = checkManifest(reference, pushed);
    const {mediaType, bytes} = checked;
    const named = isDigestReference(reference) ? [] : [reference];
    const further = pushed.tags.filter((tag) => tag !== reference);
    return inTurn(route, [checked.digest, ...named, ...further], async () => {
      const sent = {mediaType, bytes, tags: further};
      const answer = await writerOf(route).putManifest(route.repository.name, reference, sent, caller);
      const manifest = await agreed(route, reference, checked, answer.digest, caller);
      const set = await furtherTags(route, manifest, further, answer.tags, caller);
      const owes = owesTag(route) ? manifest.edge?.subject : undefined;
      const taken = {manifest, tags: [...named, ...set], owes};
      await commit(route, taken);
      return taken;
    });
  }

  return {
    putManifest: (route, reference, pushed, caller) =>
      hearing(route, MANIFEST, async (): Promise<ManifestReceipt> => {
        const taken = await put(route, reference, pushed, caller);
        const {digest, edge} = taken.manifest;
        if (taken.owes) await reconciler.settle(route, taken.owes);
        await followEntries(route, taken, caller);
        const isListed = route.registry.referrers.mode !== 'off';
        return {
          digest,
          subject: isListed ? edge?.subject : undefined,
          tags: pushed.tags.filter((tag) => taken.tags.includes(tag)),
        };
      }),

    deleteManifest: (route, reference, caller) =>
      hearing(route, MANIFEST, () =>
        inTurn(route, [reference], () =>
          isDigestReference(reference)
            ? deleteByDigest(route, reference, caller)
            : deleteTag(route, reference, caller),
        ),
      ),
  };
}

/** docker-registry 2.8 stores a manifest that was pushed as sha512 under its sha256 digest alone. */
const otherDigest = ({registry}: Route, digest: Digest, named: Digest): OciError =>
  new OciError('DIGEST_INVALID', {
    message: `upstream ${registry.upstream.host} stored the manifest as ${named} and does not know it as ${digest}: push with the digest algorithm that it keeps`,
    detail: {upstream: registry.upstream.host, expected: digest, actual: named},
  });
