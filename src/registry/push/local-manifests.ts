import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import type {Change, Metadata} from '../../storage/metadata.ts';
import type {FallbackEntries} from '../fallback-tag/follow.ts';
import {createKeyedMutex} from '../keyed.ts';
import type {Manifests} from '../manifests/manifests.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import type {LocalPush} from '../registries.ts';
import {manifestPut} from '../stored-manifest.ts';
import {type Tags, unknown} from '../tags/tags.ts';
import type {Attachments} from './attachments.ts';
import {type Contents, type ContentTerms, sizeWarning, unknownContent} from './contents.ts';
import type {ManifestReceipt, Push, PushedManifest} from './push.ts';
import {type CheckedManifest, checkManifest, isFallbackIndex, refuseShadowing} from './validate.ts';

/** The manifests and tags that are kept here. */
export interface LocalManifests {
  put(
    route: Route,
    policy: LocalPush,
    reference: Reference,
    manifest: PushedManifest,
    caller: Caller,
  ): Promise<ManifestReceipt>;
  delete: Push['deleteManifest'];
}

export interface LocalManifestsParts {
  metadata: Metadata;
  contents: Contents;
  attachments: Attachments;
  entries: FallbackEntries;
  manifests: Manifests;
  tags: Tags;
  memory: Memory;
  clock: Clock;
}

/** What is being deleted while a manifest is put is looked for again so often. */
const ATTEMPTS = 3;

interface Taking {
  route: Route;
  policy: LocalPush;
  manifest: CheckedManifest;
  tags: readonly Tag[];
  caller: Caller;
}

export function createLocalManifests({
  metadata,
  contents,
  attachments,
  entries,
  manifests,
  tags: allTags,
  memory,
  clock,
}: LocalManifestsParts): LocalManifests {
  const mutex = createKeyedMutex();

  /** Of its type's attachments, those for which there is no room beside it. */
  async function overflowOf({route, policy, manifest: {edge}}: Taking): Promise<Digest[]> {
    if (!edge || policy.keep === undefined) return [];
    return attachments.overflow(route, edge, policy.keep);
  }

  /**
   * One commit, with everything that the manifest brings about: its tags, its edge, and who has to go for it.
   * @returns undefined when what it names was deleted meanwhile
   */
  async function commit(taking: Taking): Promise<ContentTerms | undefined> {
    const {route, policy, manifest, tags, caller} = taking;
    const {repository} = route;
    const {digest, mediaType, bytes, facts, edge} = manifest;
    const overFallback = !route.registry.hosted && isFallbackIndex(manifest, tags);
    const options = {validate: policy.validate, isFallbackIndex: overFallback, caller};
    const terms = await contents.terms(route, manifest, options);
    const overflow = await overflowOf(taking);
    const at = clock.now();
    const origin = 'local' as const;
    const changes: Change[] = [
      ...terms.changes,
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at}),
      ...tags.map((name): Change => ({type: 'tag.put', repository, name, digest, origin, at})),
      ...overflow.map((old): Change => ({type: 'manifest.delete', repository, digest: old})),
    ];
    let done = false;
    await allTags.write(route, [digest, ...tags, ...overflow], async () => {
      done = await metadata.commit(changes, terms.preconditions);
    });
    if (!done) return undefined;
    for (const old of overflow) memory.forgetManifest(repository, old);
    memory.keepManifest(repository, {digest, mediaType, bytes, origin, linkedAt: at});
    return terms;
  }

  async function take(taking: Taking): Promise<ContentTerms> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const terms = await commit(taking);
      if (terms) return terms;
    }
    const {digest, facts} = taking.manifest;
    throw unknownContent(
      digest,
      facts.blobs.map((blob) => blob.digest),
    );
  }

  /** Attaching to one subject is done one at a time where room is made for it. */
  function takeInTurn(taking: Taking): Promise<ContentTerms> {
    const {route, policy, manifest} = taking;
    const {registry, name} = route.repository;
    if (!manifest.edge || policy.keep === undefined) return take(taking);
    return mutex.run(`${registry}/${name}@${manifest.edge.subject}`, () => take(taking));
  }

  /** What a client lists by the fallback tag is found by its edge, also where it need not exist. */
  async function followEntries({route, policy, manifest, tags, caller}: Taking): Promise<void> {
    if (route.registry.hosted || policy.validate.children || !isFallbackIndex(manifest, tags)) return;
    const prefix = tags.map(subjectPrefix).find((subject) => subject !== undefined);
    await entries.follow(route, [prefix as Digest], manifest, caller);
  }

  /** What is not kept here is the upstream's, which is not written to, or nobody's. */
  async function refuseForeign(route: Route, reference: Reference, caller: Caller): Promise<never> {
    if (route.registry.hosted) throw unknown(route, reference);
    await manifests.head(route, reference, caller, {noCache: false});
    throw foreign(route, `${reference} of ${route.asked}`);
  }

  async function deleteTag(route: Route, tag: Tag, caller: Caller): Promise<void> {
    const {repository} = route;
    const record = await metadata.tag(repository, tag);
    if (record?.origin !== 'local') return refuseForeign(route, tag, caller);
    await allTags.write(route, [tag], async () => {
      await metadata.commit([{type: 'tag.delete', repository, name: tag, origin: 'local'}]);
    });
  }

  async function deleteByDigest(route: Route, digest: Digest, caller: Caller): Promise<void> {
    const {repository, registry} = route;
    const record = await metadata.manifest(repository, digest);
    const isOurs = record && (registry.hosted || record.origin === 'local');
    if (!isOurs) return refuseForeign(route, digest, caller);
    await allTags.write(route, [digest], async () => {
      await metadata.commit([{type: 'manifest.delete', repository, digest}]);
    });
    memory.forgetManifest(repository, digest);
  }

  return {
    async put(route, policy, reference, pushed, caller) {
      const manifest = checkManifest(reference, pushed);
      const named = isDigestReference(reference) ? [] : [reference];
      const tags = [...new Set([...named, ...pushed.tags])];
      refuseShadowing(route, manifest, tags);
      const taking = {route, policy, manifest, tags, caller};
      const {wrongSizes} = await takeInTurn(taking);
      await followEntries(taking);
      if (manifest.edge) await attachments.count(route, manifest.edge);
      const isListed = route.registry.referrers.mode !== 'off';
      return {
        digest: manifest.digest,
        subject: isListed ? manifest.edge?.subject : undefined,
        tags: pushed.tags,
        warning: sizeWarning(wrongSizes),
      };
    },

    delete: (route, reference, caller) =>
      isDigestReference(reference)
        ? deleteByDigest(route, reference, caller)
        : deleteTag(route, reference, caller),
  };
}

/** Laid over an upstream, only what was pushed here can be deleted here. */
export const foreign = ({registry}: Route, what: string): OciError =>
  new OciError('UNSUPPORTED', {
    message: `${what} is ${registry.upstream.host}'s, over which ${registry.name} is laid: only what was pushed here is deleted here; delete it at ${registry.upstream.host} itself`,
    headers: {Allow: 'GET, HEAD, PUT'},
  });
