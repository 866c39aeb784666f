import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import {type Algorithm, createDigester, type Digest, type Digester, digestOfAll} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {createUploadId, type UploadId, unknownUpload} from '../../oci/upload.ts';
import type {Coordination} from '../../storage/coordination.ts';
import type {Change, Metadata, RepositoryKey, UploadRecord} from '../../storage/metadata.ts';
import type {Spool, Spools} from '../../storage/spool.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import {diskFailed} from '../failure.ts';
import {createKeyedMutex} from '../keyed.ts';

/** Uploads under way: a row each, a spool by the name of their id that their bytes grow, and a running digest. */
export interface Uploads {
  begin(repository: RepositoryKey, wish: Pick<UploadRecord, 'algorithm' | 'upstream'>): Promise<UploadRecord>;
  /** The upload, heard of just now, and the bytes that its spool has. @throws OciError BLOB_UPLOAD_UNKNOWN */
  find(repository: RepositoryKey, id: UploadId): Promise<{record: UploadRecord; offset: number}>;
  /**
   * Runs `work` as the one request that writes the upload. What it neither kept nor dropped stays for the next
   * request, however the work ended: that goes on behind the last byte of the spool.
   * @throws OciError BLOB_UPLOAD_UNKNOWN; BLOB_UPLOAD_INVALID with 409 while another request writes; what `work` throws
   */
  write<T>(repository: RepositoryKey, id: UploadId, work: (upload: OpenUpload) => Promise<T>): Promise<T>;
  /**
   * Ends an upload, be it while another request writes it, and removes what is here of it. Gives its last state.
   * @throws OciError BLOB_UPLOAD_UNKNOWN
   */
  cancel(repository: RepositoryKey, id: UploadId): Promise<UploadRecord>;
  /** Removes the uploads that were last heard of before `before` and are not being written; gives them. */
  sweep(before: number): Promise<UploadRecord[]>;
}

/** An upload while one request writes it. */
export interface OpenUpload {
  readonly record: UploadRecord;
  /** Bytes that were taken, by this request and by those before it. */
  readonly offset: number;
  /**
   * Appends bytes, which nobody may change afterwards. Resolves when more may follow.
   * @throws OciError BLOB_UPLOAD_UNKNOWN when the upload was cancelled meanwhile; what the file system said
   */
  take(bytes: Uint8Array): Promise<void>;
  /** Ends the writing. @throws OciError with 507 when the disk did not take everything that was given */
  settle(): Promise<void>;
  /** The digest of all bytes taken: the running one, else that of the spool, read again. */
  digest(algorithm: Algorithm): Promise<Digest>;
  /** Notes where the upstream's session of this upload stands now. */
  follow(upstream: NonNullable<UploadRecord['upstream']>): Promise<void>;
  /**
   * Ends the upload: its content, which was found to have this digest, becomes a stored blob, durably, in one commit
   * with `also`.
   */
  keep(digest: Digest, also: readonly Change[]): Promise<void>;
  /** Ends the upload and removes its bytes. */
  drop(): Promise<void>;
}

export interface UploadsParts {
  metadata: Metadata;
  spools: Spools;
  lifecycle: BlobLifecycle;
  coordination: Coordination;
  clock: Clock;
}

/** Running digests that are held between two requests; of others the spool is read again. */
const MAX_DIGESTS = 10_000;
/** Uploads that a sweep looks at in one go. */
const BATCH = 100;

/** A digest over the first bytes of a spool. */
interface RunningDigest {
  readonly algorithm: Algorithm;
  readonly digester: Digester;
  /** How many; `ENDED` when the digester gives no more. */
  bytes: number;
}
const ENDED = -1;

/** The one request that writes an upload. */
interface Writing {
  /** There from the moment on at which it has opened it. */
  spool: Spool | undefined;
  cancelled: boolean;
}

export function createUploads({metadata, spools, lifecycle, clock}: UploadsParts): Uploads {
  const writing = new Map<UploadId, Writing>();
  const digests = new LRUCache<UploadId, RunningDigest>({max: MAX_DIGESTS});
  // Whatever opens or removes a spool, or rewrites a row: a spool has one opener at a time.
  const mutex = createKeyedMutex();

  /** An upload belongs to the repository in which it was begun. */
  async function recordOf({registry, name}: RepositoryKey, id: UploadId): Promise<UploadRecord> {
    const record = await metadata.upload(id);
    if (record?.repository.registry === registry && record.repository.name === name) return record;
    throw unknownUpload(id);
  }

  async function touch(record: UploadRecord): Promise<UploadRecord> {
    const upload = {...record, touchedAt: clock.now()};
    await metadata.commit([{type: 'upload.put', upload}]);
    return upload;
  }

  /** The row goes last: as long as bytes are here, there is a row that says so. */
  async function remove(id: UploadId): Promise<void> {
    digests.delete(id);
    await spools.remove(id);
    await metadata.commit([{type: 'upload.delete', id}]);
  }

  async function spooled(id: UploadId): Promise<number> {
    const open = writing.get(id)?.spool;
    if (open) return open.size;
    const spool = await spools.open(id);
    await spool.close();
    return spool.size;
  }

  function digestSoFar(id: UploadId, spool: Spool, algorithm: Algorithm): RunningDigest | undefined {
    const known = digests.get(id);
    if (known?.bytes === spool.size) return known;
    digests.delete(id);
    if (spool.size > 0) return undefined;
    const fresh = {algorithm, digester: createDigester(algorithm), bytes: 0};
    digests.set(id, fresh);
    return fresh;
  }

  function claim(id: UploadId): Writing {
    if (writing.has(id)) throw inUse(id);
    const mine: Writing = {spool: undefined, cancelled: false};
    writing.set(id, mine);
    return mine;
  }

  /** The row is read again: another request may have ended the upload since. */
  function open(repository: RepositoryKey, id: UploadId, mine: Writing) {
    return mutex.run(id, async () => {
      const record = await recordOf(repository, id);
      const spool = await spools.open(id);
      mine.spool = spool;
      const running = digestSoFar(id, spool, record.algorithm ?? 'sha256');
      return createOpenUpload({record, spool, running, mine, metadata, lifecycle});
    });
  }

  /** Leaves what is here for the next request, unless the upload has ended. */
  function leave(id: UploadId, {spool, cancelled}: Writing, upload: Opened | undefined): Promise<void> {
    return mutex.run(id, async () => {
      writing.delete(id);
      if (upload?.ended) return void digests.delete(id);
      await spool?.close();
      if (cancelled) return remove(id);
      if (upload) await touch(upload.record);
    });
  }

  /** Removes the upload if nobody went on with it in time. */
  const expire = (id: UploadId, before: number): Promise<UploadRecord | undefined> =>
    mutex.run(id, async () => {
      const record = await metadata.upload(id);
      if (record === undefined || record.touchedAt >= before || writing.has(id)) return undefined;
      await remove(id);
      return record;
    });

  return {
    async begin(repository, {algorithm, upstream}) {
      const upload = {id: createUploadId(), repository, algorithm, upstream, touchedAt: clock.now()};
      await metadata.commit([{type: 'upload.put', upload}]);
      return upload;
    },

    find: (repository, id) =>
      mutex.run(id, async () => {
        const record = await recordOf(repository, id);
        if (writing.get(id)?.cancelled) throw unknownUpload(id);
        // Who writes it puts the row when it is done, with what has become of it.
        const touched = writing.has(id) ? record : await touch(record);
        return {record: touched, offset: await spooled(id)};
      }),

    async write(repository, id, work) {
      await recordOf(repository, id);
      const mine = claim(id);
      let upload: Opened | undefined;
      try {
        upload = await open(repository, id, mine);
        return await work(upload);
      } finally {
        await leave(id, mine, upload);
      }
    },

    cancel: (repository, id) =>
      mutex.run(id, async () => {
        const record = await recordOf(repository, id);
        const writer = writing.get(id);
        if (writer?.cancelled) throw unknownUpload(id);
        if (writer) writer.cancelled = true;
        else await remove(id);
        return record;
      }),

    async sweep(before) {
      const removed: UploadRecord[] = [];
      for (;;) {
        // Those that are written now are left alone: a body may take that long.
        const idle = await metadata.idleUploads(before, BATCH + writing.size);
        const ended = [];
        for (const {id} of idle) ended.push(await expire(id, before));
        const gone = ended.filter((record) => record !== undefined);
        removed.push(...gone);
        if (gone.length === 0) return removed;
      }
    },
  };
}

interface Opened extends OpenUpload {
  /** It was kept or dropped. */
  readonly ended: boolean;
}

interface OpenUploadParts extends Pick<UploadsParts, 'metadata' | 'lifecycle'> {
  record: UploadRecord;
  spool: Spool;
  running: RunningDigest | undefined;
  mine: Writing;
}

function createOpenUpload(parts: OpenUploadParts): Opened {
  const {spool, running, mine, metadata, lifecycle} = parts;
  let {record} = parts;
  const {id} = record;
  let offset = spool.size;
  let ended = false;

  async function spoolDigest(algorithm: Algorithm): Promise<Digest> {
    await spool.flush();
    return digestOfAll(spool.read(0, offset), algorithm);
  }

  return {
    get record() {
      return record;
    },
    get offset() {
      return offset;
    },
    get ended() {
      return ended;
    },
    async take(bytes) {
      if (mine.cancelled) throw unknownUpload(id);
      offset += bytes.length;
      if (running) {
        running.digester.update(bytes);
        running.bytes = offset;
      }
      await spool.append(bytes);
    },
    async settle() {
      await spool.close();
      if (spool.size < offset)
        throw diskFailed(`the disk took ${spool.size} of the ${offset} bytes of upload ${id}`);
    },
    async digest(algorithm) {
      if (running?.algorithm !== algorithm || running.bytes !== offset) return spoolDigest(algorithm);
      // A digester ends with its digest.
      running.bytes = ENDED;
      return running.digester.digest();
    },
    async follow(upstream) {
      record = {...record, upstream};
      await metadata.commit([{type: 'upload.put', upload: record}]);
    },
    async keep(digest, also) {
      if (mine.cancelled) throw unknownUpload(id);
      await lifecycle.publish(digest, spool, [...also, {type: 'upload.delete', id}]);
      ended = true;
    },
    async drop() {
      await spool.discard();
      // A row that cannot be removed tells of no bytes, and expires.
      ended = true;
      await metadata.commit([{type: 'upload.delete', id}]);
    },
  };
}

/** Bytes of two requests would mix. The specification has no status for it; RFC 9110 has 409. */
const inUse = (id: UploadId): OciError =>
  new OciError('BLOB_UPLOAD_INVALID', {
    status: 409,
    message: `another request writes upload ${id} at this moment: wait for its end, then ask with GET where the upload stands`,
  });
