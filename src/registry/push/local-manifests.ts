import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import type {Edge} from '../../oci/referrers.ts';
import {type Change, fullReference, type Metadata} from '../../storage/metadata.ts';
import type {Access} from '../access.ts';
import {manifestUnknown} from '../failure.ts';
import {type FallbackEntries, isFallbackIndex} from '../fallback-tag/follow.ts';
import {createKeyedMutex} from '../keyed.ts';
import type {Manifests} from '../manifests/manifests.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import type {LocalPushPolicy} from '../registries.ts';
import {manifestPut} from '../stored-manifest.ts';
import type {Tags} from '../tags/tags.ts';
import type {Attachments} from './attachments.ts';
import {refuseLargeImage} from './content-limits.ts';
import {type Contents, type ContentTerms, sizeWarning, unknownContent} from './contents.ts';
import {mayDisplace, requirePush} from './permission.ts';
import type {ManifestReceipt, Push, PushedManifest} from './push.ts';
import {keptBlobs, type RepositoryBytes} from './repository-bytes.ts';
import {type CheckedManifest, checkManifest, refuseShadowing} from './validate.ts';

/** The manifests and tags that are kept here. */
export interface LocalManifests {
  put(
    route: Route,
    policy: LocalPushPolicy,
    reference: Reference,
    manifest: PushedManifest,
    caller: Caller,
  ): Promise<ManifestReceipt>;
  delete: Push['deleteManifest'];
}

export interface LocalManifestsParts {
  metadata: Metadata;
  access: Access;
  contents: Contents;
  repositoryBytes: RepositoryBytes;
  attachments: Attachments;
  entries: FallbackEntries;
  manifests: Manifests;
  tags: Tags;
  memory: Memory;
  clock: Clock;
}

/** How often a commit is tried when content that the manifest refers to is deleted concurrently. */
const MAX_ATTEMPTS = 3;

/** A manifest that is to be kept. */
interface ManifestToKeep {
  readonly route: Route;
  readonly policy: LocalPushPolicy;
  readonly manifest: CheckedManifest;
  readonly tags: readonly Tag[];
  readonly caller: Caller;
}

export const createLocalManifests = (parts: LocalManifestsParts): LocalManifests => new KeptManifests(parts);

class KeptManifests implements LocalManifests {
  readonly #parts: LocalManifestsParts;
  readonly #mutex = createKeyedMutex();

  constructor(parts: LocalManifestsParts) {
    this.#parts = parts;
  }

  async put(
    route: Route,
    policy: LocalPushPolicy,
    reference: Reference,
    pushed: PushedManifest,
    caller: Caller,
  ): Promise<ManifestReceipt> {
    const manifest = checkManifest(reference, pushed);
    const ownTags = isDigestReference(reference) ? [] : [reference];
    const tags = [...new Set([...ownTags, ...pushed.tags])];
    requirePush(this.#parts.access, route, manifest, tags, caller);
    refuseShadowing(route, manifest, tags);
    await refuseLargeImage(route, manifest, this.#parts.metadata);
    const keeping = {route, policy, manifest, tags, caller};
    const {wrongSizes} = await this.#keepInOrder(keeping);
    await this.#followEntries(keeping);
    if (manifest.edge) await this.#parts.attachments.count(route, manifest.edge);
    const isListed = route.registry.referrers.mode !== 'off';
    return {
      digest: manifest.digest,
      subject: isListed ? manifest.edge?.subject : undefined,
      tags: pushed.tags,
      warning: sizeWarning(wrongSizes),
    };
  }

  delete(route: Route, reference: Reference, caller: Caller): Promise<void> {
    return isDigestReference(reference)
      ? this.#deleteByDigest(route, reference, caller)
      : this.#deleteTag(route, reference, caller);
  }

  /** Where the number of attachments is limited, those of one subject are kept one at a time. */
  #keepInOrder(pushed: ManifestToKeep): Promise<ContentTerms> {
    const {route, policy, manifest} = pushed;
    if (!manifest.edge || policy.keep === undefined) return this.#keep(pushed);
    return this.#mutex.run(fullReference(route.repository, manifest.edge.subject), () => this.#keep(pushed));
  }

  async #keep(pushed: ManifestToKeep): Promise<ContentTerms> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const terms = await this.#commit(pushed);
      if (terms) return terms;
    }
    const {digest, facts} = pushed.manifest;
    throw unknownContent(
      digest,
      facts.blobs.map((blob) => blob.digest),
    );
  }

  /**
   * Commits the manifest with its tags and its edge, and deletes the attachments that exceed the limit.
   * @returns undefined when content that it refers to was deleted meanwhile
   */
  async #commit({route, policy, manifest, tags, caller}: ManifestToKeep): Promise<ContentTerms | undefined> {
    const {metadata, contents, repositoryBytes, memory, clock} = this.#parts;
    const {repository} = route;
    const {digest, mediaType, bytes, facts, edge} = manifest;
    const isOverFallback = !route.registry.hosted && isFallbackIndex(manifest, tags);
    const options = {validate: policy.validate, isFallbackIndex: isOverFallback, caller};
    const terms = await contents.terms(route, manifest, options);
    const overflow = await this.#overflowOf(route, policy, edge, caller);
    const at = clock.now();
    const origin = 'local' as const;
    const changes: Change[] = [
      ...terms.changes,
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at}),
      ...tags.map((name): Change => ({type: 'tag.put', repository, name, digest, origin, at})),
      ...overflow.map((old): Change => ({type: 'manifest.delete', repository, digest: old})),
    ];
    let done = false;
    await this.#parts.tags.write(route, [digest, ...tags, ...overflow], async () => {
      done = await repositoryBytes.adding(route, keptBlobs(terms.changes), () =>
        metadata.commit(changes, terms.preconditions),
      );
    });
    if (!done) return undefined;
    for (const old of overflow) memory.forgetManifest(repository, old);
    memory.keepManifest(repository, {digest, mediaType, bytes, origin, linkedAt: at});
    return terms;
  }

  /** The attachments of the same type that exceed the limit once this one is added. */
  async #overflowOf(
    route: Route,
    {keep}: LocalPushPolicy,
    edge: Edge | undefined,
    caller: Caller,
  ): Promise<Digest[]> {
    if (!edge || keep === undefined) return [];
    const {access, attachments} = this.#parts;
    return attachments.overflow(route, edge, keep, (tags) => mayDisplace(access, route, edge, tags, caller));
  }

  /** Entries of a fallback tag that a client writes are found by their edges, even where they need not exist. */
  async #followEntries({route, policy, manifest, tags, caller}: ManifestToKeep): Promise<void> {
    if (route.registry.hosted || policy.validate.children) return;
    await this.#parts.entries.follow(route, tags, manifest, caller);
  }

  async #deleteTag(route: Route, tag: Tag, caller: Caller): Promise<void> {
    const {metadata, tags} = this.#parts;
    const {repository} = route;
    const record = await metadata.tag(repository, tag);
    if (record?.origin !== 'local') return this.#refuseDeletion(route, tag, caller);
    await tags.write(route, [tag], async () => {
      await metadata.commit([{type: 'tag.delete', repository, name: tag, origin: 'local'}]);
    });
  }

  async #deleteByDigest(route: Route, digest: Digest, caller: Caller): Promise<void> {
    const {metadata, tags, memory} = this.#parts;
    const {repository, registry} = route;
    const record = await metadata.manifest(repository, digest);
    const isOurs = record && (registry.hosted || record.origin === 'local');
    if (!isOurs) return this.#refuseDeletion(route, digest, caller);
    await tags.write(route, [digest], async () => {
      await metadata.commit([{type: 'manifest.delete', repository, digest}]);
    });
    memory.forgetManifest(repository, digest);
  }

  /** @throws OciError UNSUPPORTED for what belongs to the upstream, MANIFEST_UNKNOWN for what does not exist */
  async #refuseDeletion(route: Route, reference: Reference, caller: Caller): Promise<never> {
    if (route.registry.hosted) throw manifestUnknown(route, reference);
    await this.#parts.manifests.head(route, reference, caller, {noCache: false});
    throw belongsToUpstream(route, `${reference} of ${route.asked}`);
  }
}

/** An overlay deletes only what was pushed to it. */
export const belongsToUpstream = ({registry}: Route, what: string): OciError =>
  new OciError('UNSUPPORTED', {
    message: `${what} belongs to ${registry.upstream.host}, and ${registry.name} deletes only what was pushed here: delete it at ${registry.upstream.host}`,
    headers: {Allow: 'GET, HEAD, PUT'},
  });
