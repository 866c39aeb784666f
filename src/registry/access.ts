import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {algorithmOf, type Digest, plausibleSize} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {edgeOf} from '../oci/referrers.ts';
import {fullReference, type ManifestRecord, type Metadata} from '../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../upstream/port.ts';
import {createSingleFlight} from './keyed.ts';
import type {Memory} from './memory.ts';
import type {Route} from './namespace.ts';
import {createPlaceAccess, type Decision, type PlaceAccess, type PlaceAccessParts} from './place-access.ts';
import type {Registry} from './registries.ts';
import {storeIfSpace} from './store-if-space.ts';
import {manifestType} from './stored-manifest.ts';

export interface BlobGrant {
  /** Bytes, where known. */
  readonly size: number | undefined;
  /** Who says so: the repository's link, or the upstream just now. */
  readonly by: 'link' | 'upstream';
}

export interface MountSource {
  readonly digest: Digest;
  /** As the client named it. */
  readonly from: Route | undefined;
}

export interface ManifestGrant {
  /** Bytes. */
  readonly size: number;
}

/**
 * Decides who may have what: everything that serves, lists, mounts or catalogues content asks here. Knowing a digest is
 * not permission, and neither are bytes that another repository brought: the answer comes from the repository's link,
 * else from the upstream.
 *
 * Every method that asks the upstream throws UpstreamFailure when the upstream could not be asked, or did not confirm
 * that it has these bytes. A failure is never `unknown`.
 */
export interface Access extends PlaceAccess {
  /** What the repository's link says, else the upstream. */
  blob(route: Route, blob: Digest, caller: Caller): Promise<Decision<BlobGrant>>;
  /** What the repository's own link says, without asking the upstream. */
  recallBlob(route: Route, blob: Digest): Promise<Decision<BlobGrant>>;
  /** Asks the upstream by HEAD, whatever the link says, and links the blob when it is there. */
  confirmBlob(route: Route, blob: Digest, caller: Caller): Promise<Decision<BlobGrant>>;
  /**
   * The same for a blob that was just written to the upstream. The answer to an earlier question does not count, and a
   * HEAD without a length does not cast doubt on what the upstream has just taken.
   */
  confirmWrittenBlob(route: Route, blob: Digest, caller: Caller): Promise<Decision<BlobGrant>>;
  /**
   * The repository that a blob may be mounted from: the one that the client named, else any that has the blob, of the
   * same registry (dist-spec, Mounting a blob). undefined where there is none, or the caller may not pull from it.
   */
  mountSource(route: Route, mount: MountSource, caller: Caller): Promise<Route | undefined>;
  /** The manifest, if the repository is linked to it. Does not ask the upstream. */
  recallManifest(route: Route, manifest: Digest): Promise<Decision<{record: ManifestRecord}>>;
  /**
   * Asks the upstream by HEAD about a manifest whose bytes are here, and links it when it is there. A grant without a
   * link means that the bytes have to be fetched: they were collected meanwhile, there is no space for the link, or the
   * HEAD named another length or digest, or no length.
   */
  confirmManifest(route: Route, manifest: Digest, caller: Caller): Promise<Decision<ManifestGrant>>;
}

/** Names what a caller may have of a repository: answers are shared among those who have the same. */
export const accessKey = ({repository}: Route, digest: Digest, caller: Caller): string =>
  `${fullReference(repository, digest)} ${caller.key}`;

export interface AccessParts extends PlaceAccessParts {
  metadata: Metadata;
  memory: Memory;
  clock: Clock;
}

/** Repositories that have a blob, of which one may be open to who mounts it. The client uploads what none of them gives. */
const MAX_HOLDERS = 100;

const UNKNOWN = Object.freeze({verdict: 'unknown'});

export const createAccess = (parts: AccessParts): Access => new LinkOrUpstream(parts);

class LinkOrUpstream implements Access {
  readonly repository: PlaceAccess['repository'];
  readonly may: PlaceAccess['may'];
  readonly registry: PlaceAccess['registry'];
  readonly disclosure: PlaceAccess['disclosure'];
  readonly visibleRepositories: PlaceAccess['visibleRepositories'];
  readonly visibleTags: PlaceAccess['visibleTags'];
  readonly isOpenTo: PlaceAccess['isOpenTo'];
  readonly #metadata: Metadata;
  readonly #memory: Memory;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #blobs = createSingleFlight<Decision<BlobGrant>>();
  readonly #manifests = createSingleFlight<Decision<ManifestGrant>>();

  constructor({metadata, memory, policy, clock, events}: AccessParts) {
    const places = createPlaceAccess({policy, events});
    this.repository = places.repository;
    this.may = places.may;
    this.registry = places.registry;
    this.disclosure = places.disclosure;
    this.visibleRepositories = (registry, caller) =>
      approvedAmong(registry, caller, places.visibleRepositories(registry, caller));
    this.visibleTags = places.visibleTags;
    this.isOpenTo = places.isOpenTo;
    this.#metadata = metadata;
    this.#memory = memory;
    this.#clock = clock;
    this.#events = events;
  }

  async blob(route: Route, digest: Digest, caller: Caller): Promise<Decision<BlobGrant>> {
    const recalled = await this.recallBlob(route, digest);
    return recalled.verdict === 'unknown' ? this.confirmBlob(route, digest, caller) : recalled;
  }

  async recallBlob({repository}: Route, digest: Digest): Promise<Decision<BlobGrant>> {
    const link = await this.#metadata.blobLink(repository, digest);
    return link ? {verdict: 'allowed', size: link.size, by: 'link'} : UNKNOWN;
  }

  async confirmBlob(route: Route, digest: Digest, caller: Caller): Promise<Decision<BlobGrant>> {
    const key = accessKey(route, digest, caller);
    return (await this.#blobs.run(key, () => denialOr(() => this.#askForBlob(route, digest, caller)))).value;
  }

  confirmWrittenBlob(route: Route, digest: Digest, caller: Caller): Promise<Decision<BlobGrant>> {
    return denialOr(async () => {
      const {registry, repository} = route;
      const head = await registry.upstream.headBlob(repository.name, digest, caller);
      if (!head) return UNKNOWN;
      return this.#grantBlob(route, digest, head.size, (await this.#metadata.blob(digest))?.size);
    });
  }

  async mountSource(route: Route, {digest, from}: MountSource, caller: Caller): Promise<Route | undefined> {
    const {name: registry} = route.registry;
    if (from && from.registry.name !== registry) return undefined;
    if (from) return this.repository(from, caller, 'pull').verdict === 'allowed' ? from : undefined;
    const holders = await this.#metadata.blobHolders(registry, digest, MAX_HOLDERS);
    const {approvals} = route.registry;
    // The upstream mounts with the caller's own login, and need not hear of repositories that only others may pull from.
    const open = approvals ? holders.filter((name) => approvals.has(name, caller)) : holders;
    const sources = open.map((name) => ({...route, repository: {registry, name}}));
    return sources.find((source) => this.may(source, caller, 'pull'));
  }

  async recallManifest({repository}: Route, digest: Digest): Promise<Decision<{record: ManifestRecord}>> {
    const held = this.#memory.manifest(repository, digest);
    if (held) return {verdict: 'allowed', record: held};
    const record = await this.#metadata.manifest(repository, digest);
    if (!record) return UNKNOWN;
    this.#memory.keepManifest(repository, record);
    return {verdict: 'allowed', record};
  }

  async confirmManifest(route: Route, digest: Digest, caller: Caller): Promise<Decision<ManifestGrant>> {
    const key = accessKey(route, digest, caller);
    const ask = () => denialOr(() => this.#askForManifest(route, digest, caller));
    return (await this.#manifests.run(key, ask)).value;
  }

  async #askForBlob(route: Route, digest: Digest, caller: Caller): Promise<Decision<BlobGrant>> {
    const {registry, repository} = route;
    const head = await registry.upstream.headBlob(repository.name, digest, caller);
    if (!head) return UNKNOWN;
    const stored = await this.#metadata.blob(digest);
    if (stored) requireLength(registry.upstream.host, digest, head.size, stored.size);
    return this.#grantBlob(route, digest, head.size, stored?.size);
  }

  /** Links a blob that the upstream has, unless its length is unknown or in dispute. */
  async #grantBlob(
    {repository}: Route,
    digest: Digest,
    named: number | undefined,
    stored: number | undefined,
  ): Promise<Decision<BlobGrant>> {
    const promised = stored ?? plausibleSize(digest, await this.#metadata.promisedSize(repository, digest));
    const size = plausibleSize(digest, named) ?? promised;
    // Where the upstream and the manifest disagree about the length, only the bytes can decide.
    if (size !== undefined && size === (promised ?? size)) {
      const link = {type: 'blob.link' as const, repository, digest, size, origin: 'upstream' as const};
      const commit = () => this.#metadata.commit([{...link, at: this.#clock.now()}]);
      await storeIfSpace(this.#events, 'the link of a blob', commit);
    }
    return {verdict: 'allowed', size, by: 'upstream'};
  }

  async #askForManifest(route: Route, digest: Digest, caller: Caller): Promise<Decision<ManifestGrant>> {
    const {registry, repository} = route;
    const stored = await this.#metadata.storedManifest(digest);
    const head = await registry.upstream.headManifest(repository.name, digest, caller);
    if (!head || !stored) return UNKNOWN;
    const {bytes} = stored;
    const granted = {verdict: 'allowed' as const, size: bytes.byteLength};
    // A GET has to prove it: some registries give no length by HEAD, or 0.
    if (!isAbout(head, digest, bytes.byteLength)) return granted;
    const mediaType = manifestType(head.mediaType, readManifest(bytes), registry.upstream.host);
    const edge = edgeOf({digest, mediaType, bytes});
    const link = {type: 'manifest.link' as const, repository, digest, mediaType, edge};
    await storeIfSpace(this.#events, 'the link of a manifest', () =>
      this.#metadata.commit(
        [{...link, origin: 'upstream', at: this.#clock.now()}],
        [{type: 'manifest.stored', digest}],
      ),
    );
    return granted;
  }
}

/** Of repositories whose upstream decides for each caller, those for which it has approved this one lately. */
function approvedAmong(
  {approvals}: Registry,
  caller: Caller,
  isVisible: ReturnType<PlaceAccess['visibleRepositories']>,
): ReturnType<PlaceAccess['visibleRepositories']> {
  if (!approvals || !isVisible) return isVisible;
  return (name) => isVisible(name) && approvals.has(name, caller);
}

/** Turns an upstream's refusal of this caller into a decision. Any other failure stays one. */
async function denialOr<Grant>(ask: () => Promise<Decision<Grant>>): Promise<Decision<Grant>> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof UpstreamFailure && error.kind === 'denied')
      return {verdict: 'denied', failure: error, reason: undefined};
    throw error;
  }
}

/** A HEAD with another length, or with none, may be about other content: it confirms nothing. */
function requireLength(host: string, digest: Digest, named: number | undefined, known: number): void {
  if (named === known) return;
  const reason =
    named === undefined
      ? `does not name the length of ${digest}`
      : `answered HEAD of ${digest} with a length of ${named} bytes; that content has ${known}`;
  throw new UpstreamFailure('protocol', host, reason);
}

/** A registry may know the same content by a digest of another algorithm (docker-registry 2.8 does). */
function isAbout(head: ManifestHead, digest: Digest, size: number): boolean {
  if (head.size !== size) return false;
  return !head.digest || head.digest === digest || algorithmOf(head.digest) !== algorithmOf(digest);
}
