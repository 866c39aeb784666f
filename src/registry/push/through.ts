import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import type {RepositoryName} from '../../oci/name.ts';
import {type UploadId, unknownUpload} from '../../oci/upload.ts';
import type {Change, Metadata, UploadRecord} from '../../storage/metadata.ts';
import {type BlobTaken, type OutgoingChunk, UpstreamFailure, UpstreamRefusal} from '../../upstream/port.ts';
import {type Access, grantIn} from '../access.ts';
import {createFallbackEntries, type FallbackEntriesParts} from '../fallback-tag/follow.ts';
import type {Route} from '../namespace.ts';
import {blobAbsence, type NegativeCache} from '../negative-cache.ts';
import {storeIfSpace} from '../store-if-space.ts';
import {BLOB, hearing, outOfOrder, UPLOAD, writerOf} from './errors.ts';
import type {Chunk, Push, UploadState, UploadWish} from './push.ts';
import {createThroughManifests, type ThroughManifestsParts} from './through-manifests.ts';
import type {OpenUpload, Uploads} from './uploads.ts';

export type ThroughPushParts = Omit<ThroughManifestsParts, 'entries'> &
  ThroughUploadsParts &
  FallbackEntriesParts;

/**
 * Mode `push: through`: everything is written to the upstream with the registry's credentials, its refusals are the
 * client's to hear, and what passed is here for the next pull.
 */
export const createThroughPush = (parts: ThroughPushParts): Push => ({
  ...createThroughUploads(parts),
  ...createThroughManifests({...parts, entries: createFallbackEntries(parts)}),
});

interface ThroughUploadsParts {
  uploads: Uploads;
  metadata: Metadata;
  access: Access;
  negativeCache: NegativeCache;
  clock: Clock;
  events: Events;
}

type Session = NonNullable<UploadRecord['upstream']>;

/** Uploads of which it is remembered that the upstream told where they stand. */
const MAX_TOLD = 10_000;

/**
 * Uploads whose bytes go to the upstream, which alone says where they stand. On the way they are kept here as well, so
 * that the first pull need not fetch them: a copy that differs from what the upstream has is given up, and the upload
 * goes on.
 */
function createThroughUploads({
  uploads,
  metadata,
  access,
  negativeCache,
  clock,
  events,
}: ThroughUploadsParts): Pick<Push, 'begin' | 'state' | 'append' | 'finish' | 'cancel' | 'deleteBlob'> {
  /** Of these the row says what the upstream said last, or is known not to; of one that broke, it may have taken more. */
  const told = new LRUCache<UploadId, boolean>({max: MAX_TOLD});

  /** The repository that the upstream may take the blob from; it is asked to mount only from its own. */
  async function mountOf(
    {registry}: Route,
    {mount}: UploadWish,
  ): Promise<{digest: Digest; from?: RepositoryName} | undefined> {
    if (!mount || (mount.from && mount.from.registry.name !== registry.name)) return undefined;
    const {digest, from} = mount;
    // dist-spec, Mounting without `from`: many registries take no part in it, but we may know where the blob is.
    const name = from?.repository.name ?? (await metadata.blobHolder(registry.name, digest));
    return {digest, ...(name ? {from: name} : {})};
  }

  const linkOf = ({repository}: Route, digest: Digest, size: number): Change => ({
    type: 'blob.link',
    repository,
    digest,
    size,
    origin: 'upstream',
    at: clock.now(),
  });

  /** Links what the upstream says it has. @returns false when it does not have it */
  const confirm = async (route: Route, digest: Digest, caller: Caller): Promise<boolean> =>
    grantIn(await access.confirmWrittenBlob(route, digest, caller)) !== undefined;

  /** The upstream has the blob: without room for the link, it is confirmed again when it is asked for. */
  const link = (route: Route, digest: Digest, size: number): Promise<boolean> =>
    storeIfSpace(events, 'the link of a blob', () => metadata.commit([linkOf(route, digest, size)]));

  /** The upstream has taken the blob already: what cannot be confirmed now is confirmed when it is asked for. */
  async function confirmIfPossible(route: Route, digest: Digest, caller: Caller): Promise<void> {
    try {
      await confirm(route, digest, caller);
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
    }
  }

  async function mounted(route: Route, digest: Digest, caller: Caller): Promise<void> {
    negativeCache.forget(blobAbsence(route.repository, digest));
    const known = await metadata.blob(digest);
    if (known) await link(route, digest, known.size);
    else await confirmIfPossible(route, digest, caller);
  }

  /** The upload's record. Without one nobody could go on with the upstream's session, or end it: it is ended here. */
  async function recorded(
    route: Route,
    {algorithm, upstream}: Pick<UploadRecord, 'algorithm'> & {upstream: Session},
    caller: Caller,
  ): Promise<UploadRecord> {
    try {
      return await uploads.begin(route.repository, {algorithm, upstream});
    } catch (error) {
      await abandon(route, upstream, caller);
      throw error;
    }
  }

  /** Ends a session that nobody will go on with, if the upstream lets it be ended. */
  async function abandon(route: Route, {location}: Session, caller: Caller): Promise<void> {
    try {
      await writerOf(route).cancelUpload(route.repository.name, location, caller);
    } catch (error) {
      // A failure of the upstream's is told by its client.
      if (error instanceof UpstreamFailure || error instanceof UpstreamRefusal) return;
      events.emit('background.failed', {task: 'cancel an upload at its upstream', error});
    }
  }

  /** Runs what sends to a session; one that the upstream does not know any more is gone here as well. */
  async function inSession<T>(upload: OpenUpload, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      told.delete(upload.record.id);
      if (!(error instanceof UpstreamRefusal) || error.status !== 404) throw error;
      await upload.drop();
      throw unknownUpload(upload.record.id);
    }
  }

  /**
   * The session, at the place where the chunk belongs. Not every registry looks at that (distribution 2 appends
   * whatever comes), so it is asked here before bytes get mixed up; also after a chunk that broke off on the way, of
   * which our copy tells even after a restart.
   * @throws OciError BLOB_UPLOAD_INVALID with 416
   */
  async function sessionFor(
    route: Route,
    upload: OpenUpload,
    {range}: Chunk,
    caller: Caller,
  ): Promise<Session> {
    const known = sessionOf(upload.record);
    const isSure = told.get(upload.record.id) ?? upload.offset === known.offset;
    if (range === undefined || (range.start === known.offset && isSure)) return known;
    const session = await ask(route, upload.record, caller);
    if (!session) {
      await upload.drop();
      throw unknownUpload(upload.record.id);
    }
    await note(upload, session);
    if (range.start === session.offset) return session;
    throw outOfOrder(session.offset, `the chunk begins at byte ${range.start}`);
  }

  /** What cannot be noted is asked for before the next bytes: sent twice, they would follow each other. */
  async function note(upload: OpenUpload, session: Session): Promise<void> {
    try {
      await upload.follow(session);
    } catch (error) {
      told.set(upload.record.id, false);
      throw error;
    }
  }

  /** Where the upstream says that the session stands. */
  async function ask(route: Route, record: UploadRecord, caller: Caller): Promise<Session | undefined> {
    const known = sessionOf(record);
    const session = await writerOf(route).uploadState(route.repository.name, known, caller);
    if (session) told.set(record.id, true);
    return session && following(known, session);
  }

  /** Whether what is here of the blob became its stored copy. */
  async function kept(route: Route, upload: OpenUpload, copy: Copy, digest: Digest): Promise<boolean> {
    if (!copy.good) return false;
    try {
      if ((await upload.digest(algorithmOf(digest))) !== digest) return false;
      await upload.keep(digest, [linkOf(route, digest, upload.offset)]);
      return true;
    } catch (error) {
      events.emit('background.failed', {task: `keep the pushed blob ${digest}`, error});
      return false;
    }
  }

  /**
   * The upstream has taken the last bytes. Once it has the blob, nothing that goes wrong here with the copy takes that
   * back.
   * @throws OciError DIGEST_INVALID, UpstreamFailure when it does not have it
   */
  async function finished(
    route: Route,
    upload: OpenUpload,
    copy: Copy,
    digest: Digest,
    {created, digest: named = digest}: BlobTaken,
    caller: Caller,
  ): Promise<void> {
    negativeCache.forget(blobAbsence(route.repository, digest));
    const isSure = created && named === digest;
    if (!isSure && !(await confirm(route, digest, caller))) {
      if (!created) throw notTaken(route, digest);
      await upload.drop();
      throw otherDigest(route, digest, named);
    }
    if (await kept(route, upload, copy, digest)) return;
    await storeIfSpace(events, 'that an upload has ended', async () => {
      await upload.drop();
      await confirmIfPossible(route, digest, caller);
    });
  }

  return {
    begin: (route, wish, caller) =>
      hearing(route, UPLOAD, async () => {
        const {repository} = route;
        const mount = await mountOf(route, wish);
        const {algorithm} = wish;
        const upstreamWish = {...(mount ? {mount} : {}), ...(algorithm ? {algorithm} : {})};
        const upstream = await writerOf(route).beginUpload(repository.name, upstreamWish, caller);
        if (upstream === 'mounted') {
          if (mount) await mounted(route, mount.digest, caller);
          return 'mounted';
        }
        const {id} = await recorded(route, {algorithm, upstream}, caller);
        return stateOf(id, upstream);
      }),

    state: (route, id, caller) =>
      hearing(route, UPLOAD, async () => {
        const {record} = await uploads.find(route.repository, id);
        const session = await ask(route, record, caller);
        if (!session) {
          await uploads.cancel(route.repository, id);
          throw unknownUpload(id);
        }
        await uploads.write(route.repository, id, (upload) => upload.follow(session)).catch(unlessBusy);
        return stateOf(id, session);
      }),

    append: (route, id, chunk, caller) =>
      hearing(route, UPLOAD, () =>
        uploads.write(route.repository, id, async (upload) => {
          const known = await sessionFor(route, upload, chunk, caller);
          const copy = copyOf(chunk, upload, known);
          const after = await inSession(upload, () =>
            writerOf(route).appendUpload(route.repository.name, known, copy.outgoing, caller),
          );
          const session = following(known, after);
          await note(upload, session);
          return stateOf(id, session);
        }),
      ),

    finish: (route, id, digest, chunk, caller) =>
      hearing(route, UPLOAD, () =>
        uploads.write(route.repository, id, async (upload) => {
          const known = await sessionFor(route, upload, chunk, caller);
          const copy = copyOf(chunk, upload, known);
          const {name} = route.repository;
          const taken = await inSession(upload, () =>
            writerOf(route).finishUpload(name, known.location, digest, copy.outgoing, caller),
          );
          await finished(route, upload, copy, digest, taken, caller);
        }),
      ),

    cancel: (route, id, caller) =>
      hearing(route, UPLOAD, async () => {
        const {record} = await uploads.find(route.repository, id);
        await writerOf(route).cancelUpload(route.repository.name, sessionOf(record).location, caller);
        await uploads.cancel(route.repository, id);
      }),

    deleteBlob: (route, digest, caller) =>
      hearing(route, BLOB, async () => {
        const {repository} = route;
        const unlink = () => metadata.commit([{type: 'blob.unlink', repository, digest}]);
        try {
          await writerOf(route).deleteBlob(repository.name, digest, caller);
        } catch (error) {
          // The upstream does not have it any more: then it goes here as well.
          if (error instanceof UpstreamRefusal && error.status === 404) await unlink();
          throw error;
        }
        await unlink();
      }),
  };
}

/** A chunk on its way to the upstream. */
interface Copy {
  readonly outgoing: OutgoingChunk;
  /** What is here of the blob is what the upstream has of it. */
  readonly good: boolean;
}

/** The bytes pass once: each goes into the copy, as long as that is one, and then on, at the pace of the slower. */
function copyOf({length, range, bytes}: Chunk, upload: OpenUpload, {offset}: Session): Copy {
  let good = upload.offset === offset;
  async function take(piece: Uint8Array): Promise<void> {
    try {
      await upload.take(piece);
    } catch (error) {
      // Cancelled meanwhile; anything else is the disk's, and no matter of the upload's.
      if (error instanceof OciError) throw error;
      good = false;
    }
  }
  // No generator: one that is ended while it waits for its source ends only when that has given something.
  function passing(): AsyncIterator<Uint8Array, void> {
    const source = bytes[Symbol.asyncIterator]();
    return {
      async next() {
        const next = await source.next();
        if (next.done) return {done: true, value: undefined};
        if (good) await take(next.value);
        return next;
      },
      async return() {
        await source.return?.();
        return {done: true, value: undefined};
      },
    };
  }
  return {
    outgoing: {length, range, bytes: {[Symbol.asyncIterator]: passing}},
    get good() {
      return good;
    },
  };
}

/** @throws OciError BLOB_UPLOAD_UNKNOWN for an upload from a time at which nothing was pushed through */
function sessionOf({id, upstream}: UploadRecord): Session {
  if (upstream) return upstream;
  throw unknownUpload(id);
}

/** The least size of chunks is told at the beginning alone by some. */
const following = (known: Session, session: Session): Session => ({
  ...session,
  minChunk: session.minChunk ?? known.minChunk,
});

const stateOf = (id: UploadId, {offset, minChunk}: Session): UploadState => ({id, offset, minChunk});

/** Who writes the upload at this moment notes where it stands afterwards. */
function unlessBusy(error: unknown): void {
  if (!(error instanceof OciError) || error.status !== 409) throw error;
}

const notTaken = ({registry}: Route, digest: Digest): UpstreamFailure =>
  new UpstreamFailure(
    'protocol',
    registry.upstream.host,
    `took the last bytes of ${digest} without saying 201, and does not have it`,
  );

/** docker-registry 2.8 stores a blob that was pushed as sha512 under its sha256 digest alone. */
const otherDigest = ({registry}: Route, digest: Digest, named: Digest): OciError =>
  new OciError('DIGEST_INVALID', {
    message: `upstream ${registry.upstream.host} stored the content as ${named} and does not know it as ${digest}: push with the digest algorithm that it keeps`,
    detail: {upstream: registry.upstream.host, expected: digest, actual: named},
  });
