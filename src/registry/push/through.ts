import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import type {Reference, RepositoryName} from '../../oci/name.ts';
import {type UploadId, unknownUpload} from '../../oci/upload.ts';
import type {Change, Metadata} from '../../storage/metadata.ts';
import {type BlobTaken, UpstreamFailure, UpstreamRefusal} from '../../upstream/port.ts';
import type {Access} from '../access.ts';
import {createFallbackEntries, type FallbackEntriesParts} from '../fallback-tag/follow.ts';
import type {Route} from '../namespace.ts';
import {blobAbsence, type NegativeCache} from '../negative-cache.ts';
import {grantIn} from '../place-access.ts';
import {storeIfSpace} from '../store-if-space.ts';
import {BLOB_CODES, storedUnderOtherDigest, toThroughErrors, UPLOAD_CODES} from './errors.ts';
import type {OpenUpload} from './open-upload.ts';
import type {Chunk, ManifestReceipt, Push, PushedManifest, UploadOptions, UploadState} from './push.ts';
import {
  createThroughManifests,
  type ThroughManifests,
  type ThroughManifestsParts,
} from './through-manifests.ts';
import {
  createUpstreamSessions,
  following,
  hasEnded,
  type Session,
  sessionOf,
  type UpstreamSessions,
  writerOf,
} from './through-sessions.ts';
import type {Uploads} from './uploads.ts';

export interface ThroughPushParts extends Omit<ThroughManifestsParts, 'entries'>, FallbackEntriesParts {
  uploads: Uploads;
  metadata: Metadata;
  access: Access;
  negativeCache: NegativeCache;
  clock: Clock;
  events: Events;
}

/** What becomes of the last chunk of an upload. */
interface Finish {
  readonly digest: Digest;
  /** What the upstream answered to the last bytes. */
  readonly taken: BlobTaken;
  /** The local copy holds exactly what the upstream has. */
  readonly isCopyExact: boolean;
}

/**
 * Mode `push: through`: everything is written to the upstream with the registry's credentials, and its refusals are
 * passed on to the client. What was pushed is also kept here, so that the first pull need not fetch it: a copy that
 * differs from what the upstream has is given up, and the upload continues.
 */
export const createThroughPush = (parts: ThroughPushParts): Push => new ThroughPush(parts);

class ThroughPush implements Push {
  readonly #uploads: Uploads;
  readonly #metadata: Metadata;
  readonly #access: Access;
  readonly #negativeCache: NegativeCache;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #sessions: UpstreamSessions;
  readonly #manifests: ThroughManifests;

  constructor(parts: ThroughPushParts) {
    this.#uploads = parts.uploads;
    this.#metadata = parts.metadata;
    this.#access = parts.access;
    this.#negativeCache = parts.negativeCache;
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#sessions = createUpstreamSessions(parts);
    this.#manifests = createThroughManifests({...parts, entries: createFallbackEntries(parts)});
  }

  begin(route: Route, options: UploadOptions, caller: Caller): Promise<UploadState | 'mounted'> {
    return toThroughErrors(route, UPLOAD_CODES, async () => {
      const mount = await this.#mountOf(route, options, caller);
      const {algorithm, holder} = options;
      await this.#uploads.refuseMore(holder);
      const upstreamOptions = {...(mount ? {mount} : {}), ...(algorithm ? {algorithm} : {})};
      const upstream = await writerOf(route).beginUpload(route.repository.name, upstreamOptions, caller);
      if (upstream === 'mounted') {
        if (mount) await this.#linkMounted(route, mount.digest, caller);
        return 'mounted';
      }
      const {id} = await this.#sessions.record(route, {algorithm, upstream, holder}, caller);
      return stateOf(id, upstream);
    });
  }

  state(route: Route, id: UploadId, caller: Caller): Promise<UploadState> {
    return toThroughErrors(route, UPLOAD_CODES, async () => {
      const {record} = await this.#uploads.find(route.repository, id);
      const session = await this.#sessions.ask(route, record, caller);
      if (!session) {
        if (hasEnded(route)) await this.#uploads.cancel(route.repository, id);
        throw unknownUpload(id);
      }
      await this.#uploads
        .write(route.repository, id, (upload) => upload.recordSession(session))
        .catch(ignoreBusy);
      return stateOf(id, session);
    });
  }

  append(route: Route, id: UploadId, chunk: Chunk, caller: Caller): Promise<UploadState> {
    const {name} = route.repository;
    return toThroughErrors(route, UPLOAD_CODES, () =>
      this.#uploads.write(route.repository, id, async (upload) => {
        const {answer, session} = await this.#sessions.send(route, upload, chunk, caller, (to, outgoing) =>
          writerOf(route).appendUpload(name, to, outgoing, caller),
        );
        const after = following(session, answer);
        await this.#sessions.note(upload, after);
        return stateOf(id, after);
      }),
    );
  }

  finish(route: Route, id: UploadId, digest: Digest, chunk: Chunk, caller: Caller): Promise<void> {
    const {name} = route.repository;
    return toThroughErrors(route, UPLOAD_CODES, () =>
      this.#uploads.write(route.repository, id, async (upload) => {
        const sent = await this.#sessions.send(route, upload, chunk, caller, ({location}, outgoing) =>
          writerOf(route).finishUpload(name, location, digest, outgoing, caller),
        );
        const {answer: taken, isCopyExact} = sent;
        await this.#complete(route, upload, {digest, taken, isCopyExact}, caller);
      }),
    );
  }

  cancel(route: Route, id: UploadId, caller: Caller): Promise<void> {
    return toThroughErrors(route, UPLOAD_CODES, async () => {
      const {record} = await this.#uploads.find(route.repository, id);
      // Cancelling what the upstream does not know succeeds, also for whom it only hides the upload from.
      if (!hasEnded(route) && !(await this.#sessions.ask(route, record, caller))) throw unknownUpload(id);
      await writerOf(route).cancelUpload(route.repository.name, sessionOf(record).location, caller);
      await this.#uploads.cancel(route.repository, id);
    });
  }

  putManifest(
    route: Route,
    reference: Reference,
    manifest: PushedManifest,
    caller: Caller,
  ): Promise<ManifestReceipt> {
    return this.#manifests.put(route, reference, manifest, caller);
  }

  deleteManifest(route: Route, reference: Reference, caller: Caller): Promise<void> {
    return this.#manifests.delete(route, reference, caller);
  }

  deleteBlob(route: Route, digest: Digest, caller: Caller): Promise<void> {
    const {repository} = route;
    const unlink = () => this.#metadata.commit([{type: 'blob.unlink', repository, digest}]);
    return toThroughErrors(route, BLOB_CODES, async () => {
      try {
        await writerOf(route).deleteBlob(repository.name, digest, caller);
      } catch (error) {
        // The upstream no longer has it, so it is deleted here too.
        if (error instanceof UpstreamRefusal && error.status === 404) await unlink();
        throw error;
      }
      await unlink();
    });
  }

  /** The repository that the upstream may take the blob from. It can only mount from its own repositories. */
  async #mountOf(
    route: Route,
    {mount}: UploadOptions,
    caller: Caller,
  ): Promise<{digest: Digest; from?: RepositoryName} | undefined> {
    if (!mount) return undefined;
    const {digest, from} = mount;
    // dist-spec, Mounting without `from`: many registries do not support it, but we may know where the blob is.
    const source = await this.#access.mountSource(route, mount, caller);
    if (source) return {digest, from: source.repository.name};
    // The upstream mounts with our credentials, from wherever it has the blob.
    return from || !this.#access.isOpenTo(caller) ? undefined : {digest};
  }

  async #linkMounted(route: Route, digest: Digest, caller: Caller): Promise<void> {
    this.#negativeCache.forget(blobAbsence(route.repository, digest));
    const stored = await this.#metadata.blob(digest);
    if (!stored) return this.#confirmIfPossible(route, digest, caller);
    const change = this.#linkOf(route, digest, stored.size);
    await storeIfSpace(this.#events, 'the link of a blob', () => this.#metadata.commit([change]));
  }

  #linkOf({repository}: Route, digest: Digest, size: number): Change {
    return {type: 'blob.link', repository, digest, size, origin: 'upstream', at: this.#clock.now()};
  }

  /** Links what the upstream says it has. @returns false when it does not have it */
  async #confirm(route: Route, digest: Digest, caller: Caller): Promise<boolean> {
    return grantIn(await this.#access.confirmWrittenBlob(route, digest, caller)) !== undefined;
  }

  /** The upstream already has the blob: one that cannot be confirmed now is confirmed when it is pulled. */
  async #confirmIfPossible(route: Route, digest: Digest, caller: Caller): Promise<void> {
    try {
      await this.#confirm(route, digest, caller);
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
    }
  }

  /**
   * The upstream has taken the last bytes. Once it has the blob, a failure of the local copy does not fail the push.
   * @throws OciError DIGEST_INVALID, or UpstreamFailure, when it does not have the blob
   */
  async #complete(route: Route, upload: OpenUpload, finish: Finish, caller: Caller): Promise<void> {
    const {digest, taken} = finish;
    const {created, digest: actual = digest} = taken;
    this.#negativeCache.forget(blobAbsence(route.repository, digest));
    const isSure = created && actual === digest;
    if (!isSure && !(await this.#confirm(route, digest, caller))) {
      if (!created) throw notStored(route, digest);
      await upload.discard();
      throw storedUnderOtherDigest(route, 'content', {expected: digest, actual});
    }
    if (await this.#keepCopy(route, upload, finish)) return;
    await storeIfSpace(this.#events, 'that an upload has ended', async () => {
      await upload.discard();
      await this.#confirmIfPossible(route, digest, caller);
    });
  }

  /** @returns whether the local copy became the stored blob */
  async #keepCopy(route: Route, upload: OpenUpload, {digest, isCopyExact}: Finish): Promise<boolean> {
    if (!isCopyExact) return false;
    try {
      if ((await upload.digest(algorithmOf(digest))) !== digest) return false;
      await upload.publish(digest, [this.#linkOf(route, digest, upload.offset)]);
      return true;
    } catch (error) {
      this.#events.emit('background.failed', {task: `keep the pushed blob ${digest}`, error});
      return false;
    }
  }
}

const stateOf = (id: UploadId, {offset, minChunk}: Session): UploadState => ({id, offset, minChunk});

/** The request that is writing the upload records its state afterwards. */
function ignoreBusy(error: unknown): void {
  if (!(error instanceof OciError) || error.status !== 409) throw error;
}

const notStored = ({registry}: Route, digest: Digest): UpstreamFailure =>
  new UpstreamFailure(
    'protocol',
    registry.upstream.host,
    `accepted the last bytes of ${digest} without answering 201, and does not have the blob`,
  );
