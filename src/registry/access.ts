import type {Action, Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import {algorithmOf, type Digest, plausibleSize} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {readManifest} from '../oci/manifest.ts';
import type {RepositoryName} from '../oci/name.ts';
import {edgeOf} from '../oci/referrers.ts';
import {fullReference, type ManifestRecord, type Metadata} from '../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../upstream/port.ts';
import type {AccessPolicy} from './access-policy.ts';
import type {Place} from './access-rules.ts';
import {createSingleFlight} from './keyed.ts';
import type {Memory} from './memory.ts';
import type {Route} from './namespace.ts';
import type {Registry} from './registries.ts';
import {notServed} from './served.ts';
import {storeIfSpace} from './store-if-space.ts';
import {manifestType} from './stored-manifest.ts';

export interface Denied {
  readonly verdict: 'denied';
  /** The upstream's own answer, where it is the one that denies; or what the client is told instead of DENIED. */
  readonly failure: UpstreamFailure | OciError | undefined;
  /** Which rule denies it, or what is missing, where the configuration is what denies. */
  readonly reason: string | undefined;
}

/**
 * May this caller have it? `unknown`: the repository does not have it, as far as this caller may know.
 * @template Grant what is known of the content, for an answer without a second question
 */
export type Decision<Grant = object> =
  | ({readonly verdict: 'allowed'} & Grant)
  | Denied
  | {readonly verdict: 'unknown'};

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
export interface Access {
  /**
   * May this caller do this in this repository? Decided once per request, and per repository of a list, before anything
   * is looked for.
   * @param tag where the request names one
   */
  repository(route: Route, caller: Caller, action: Action, tag?: string): Decision;
  /** May this caller do this in a registry as a whole, or in all of them where none is named? */
  registry(registry: Registry | undefined, caller: Caller, action: Action): Decision;
  /** Which repositories of a registry the caller may pull from, for a list of them; undefined: none. */
  visibleRepositories(registry: Registry, caller: Caller): ((name: RepositoryName) => boolean) | undefined;
  /** Which tags of a repository the caller may pull, for a list of them; undefined: all, if it may pull from it at all. */
  visibleTags(route: Route, caller: Caller): ((tag: string) => boolean) | undefined;
  /** Whether the caller may pull everything, so that an upstream may mount a blob from wherever it is. */
  isOpenTo(caller: Caller): boolean;
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

/**
 * What a decision grants; undefined for what the repository does not have.
 * @throws UpstreamFailure or OciError where it is denied
 */
export function grantIn<Grant>(decision: Decision<Grant>): Grant | undefined {
  if (decision.verdict === 'denied') throw denial(decision);
  return decision.verdict === 'allowed' ? decision : undefined;
}

/** The answer to a caller who is denied something. */
export const denial = ({failure, reason}: Denied): UpstreamFailure | OciError =>
  failure ?? new OciError('DENIED', reason === undefined ? {} : {message: reason});

/** Names what a caller may have of a repository: answers are shared among those who have the same. */
export const accessKey = ({repository}: Route, digest: Digest, caller: Caller): string =>
  `${fullReference(repository, digest)} ${caller.key}`;

export interface AccessParts {
  metadata: Metadata;
  memory: Memory;
  /** The rules in force. */
  policy(): AccessPolicy;
  clock: Clock;
  events: Events;
}

const UNKNOWN = Object.freeze({verdict: 'unknown'});
const ALLOWED = Object.freeze({verdict: 'allowed'});

export const createAccess = (parts: AccessParts): Access => new LinkOrUpstream(parts);

class LinkOrUpstream implements Access {
  readonly #metadata: Metadata;
  readonly #memory: Memory;
  readonly #policy: () => AccessPolicy;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #blobs = createSingleFlight<Decision<BlobGrant>>();
  readonly #manifests = createSingleFlight<Decision<ManifestGrant>>();

  constructor({metadata, memory, policy, clock, events}: AccessParts) {
    this.#metadata = metadata;
    this.#memory = memory;
    this.#policy = policy;
    this.#clock = clock;
    this.#events = events;
  }

  repository(route: Route, caller: Caller, action: Action, tag?: string): Decision {
    const {registry, repository} = route;
    if (action !== 'pull' && registry.push.mode === 'deny')
      return denied(`registry ${registry.name} is a mirror and takes no pushes`);
    const place = {registry: registry.name, repository: repository.name, tag};
    const ruling = this.#ruling(caller, place, action);
    if (ruling.verdict === 'denied' || registry.serves(repository.name)) return ruling;
    // To a client that pulls, a repository that the configuration leaves out does not exist.
    const failure = notServed(route, action === 'pull' ? 'NAME_UNKNOWN' : 'DENIED');
    return {verdict: 'denied', failure, reason: undefined};
  }

  registry(registry: Registry | undefined, caller: Caller, action: Action): Decision {
    return this.#ruling(caller, {registry: registry?.name, repository: undefined, tag: undefined}, action);
  }

  visibleRepositories(registry: Registry, caller: Caller): ((name: RepositoryName) => boolean) | undefined {
    const isVisible = this.#policy().repositoryFilter(caller, registry.name);
    return isVisible && ((name) => registry.serves(name) && isVisible(name));
  }

  visibleTags({repository: {registry, name}}: Route, caller: Caller): ((tag: string) => boolean) | undefined {
    return this.#policy().tagFilter(caller, {registry, repository: name, tag: undefined});
  }

  isOpenTo(caller: Caller): boolean {
    return this.#policy().isOpenTo(caller);
  }

  #ruling(caller: Caller, place: Place, action: Action): Decision {
    const ruling = this.#policy().decide(caller, place, action);
    if (!ruling.isAllowed) this.#report('enforce', ruling.reason, caller, place, action);
    else if (ruling.audited !== undefined) this.#report('audit', ruling.audited, caller, place, action);
    return ruling.isAllowed ? ALLOWED : denied(ruling.reason);
  }

  #report(
    mode: 'enforce' | 'audit',
    reason: string,
    {names: [caller]}: Caller,
    place: Place,
    action: Action,
  ): void {
    this.#events.emit('access.denied', {mode, caller, action, ...place, reason});
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
    const name = from?.repository.name ?? (await this.#metadata.blobHolder(registry, digest));
    if (!name) return undefined;
    const source = from ?? {...route, repository: {registry, name}};
    return this.repository(source, caller, 'pull').verdict === 'allowed' ? source : undefined;
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

const denied = (reason: string): Denied => ({verdict: 'denied', failure: undefined, reason});

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
