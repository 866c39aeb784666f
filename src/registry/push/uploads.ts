import type {Clock} from '../../clock.ts';
import {createLru} from '../../lru.ts';
import {type Algorithm, createDigester} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {createUploadId, type UploadId, unknownUpload} from '../../oci/upload.ts';
import type {Claim, Coordination} from '../../storage/coordination.ts';
import type {Metadata, RepositoryKey, UploadRecord} from '../../storage/metadata.ts';
import type {Spool, Spools} from '../../storage/spool.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import {createKeyedMutex} from '../keyed.ts';
import type {Space} from '../space.ts';
import {type OpenUpload, type RunningDigest, type UploadWriter, WrittenUpload} from './open-upload.ts';

/** Uploads in progress. Each has a row, a spool that is named after its id and receives its bytes, and a running digest. */
export interface Uploads {
  /** @throws as `refuseMore` */
  begin(
    repository: RepositoryKey,
    options: Pick<UploadRecord, 'algorithm' | 'upstream' | 'holder'>,
  ): Promise<UploadRecord>;
  /** @throws OciError TOOMANYREQUESTS when as many uploads of this holder as may are unfinished */
  refuseMore(holder: string | undefined): Promise<void>;
  /** The upload and the size of its spool. It does not expire for a while. @throws OciError BLOB_UPLOAD_UNKNOWN */
  find(repository: RepositoryKey, id: UploadId): Promise<{record: UploadRecord; offset: number}>;
  /**
   * Runs `work` as the one request that writes the upload. Unless `work` publishes or discards the upload, its bytes stay
   * for the next request, which continues at the end of the spool, even if `work` fails.
   * @throws OciError BLOB_UPLOAD_UNKNOWN; BLOB_UPLOAD_INVALID with 409 while another request is writing; what `work` throws
   */
  write<T>(repository: RepositoryKey, id: UploadId, work: (upload: OpenUpload) => Promise<T>): Promise<T>;
  /**
   * Ends an upload and removes its bytes, even while another request is writing it.
   * @returns its last state
   * @throws OciError BLOB_UPLOAD_UNKNOWN
   */
  cancel(repository: RepositoryKey, id: UploadId): Promise<UploadRecord>;
  /** Removes the uploads that were last touched before `before` and are not being written. @returns them */
  sweep(before: number): Promise<UploadRecord[]>;
}

export interface UploadsParts {
  metadata: Metadata;
  spools: Spools;
  space: Pick<Space, 'reservePushed'>;
  lifecycle: BlobLifecycle;
  coordination: Coordination;
  /** How many uploads of one holder may be unfinished: `limits.uploads.unfinished`, as it is now. */
  maxHeld(): number;
  clock: Clock;
}

/** Uploads end when they are finished or have been idle for long: what a client that has too many should wait, in seconds. */
const RETRY_AFTER_S = 60;
/** Running digests that are kept between requests; without one, the spool is read again. */
const MAX_DIGESTS = 10_000;
/** Uploads that a sweep looks at in one query. */
const BATCH = 100;
/** How long an upload stays claimed when the process that writes it dies. */
const CLAIM_TTL_MS = 60_000;

export const createUploads = (parts: UploadsParts): Uploads => new SpooledUploads(parts);

class SpooledUploads implements Uploads {
  readonly #metadata: Metadata;
  readonly #spools: Spools;
  readonly #space: UploadsParts['space'];
  readonly #lifecycle: BlobLifecycle;
  readonly #coordination: Coordination;
  readonly #maxHeld: () => number;
  readonly #clock: Clock;
  readonly #writers = new Map<UploadId, UploadWriter>();
  readonly #digests = createLru<UploadId, RunningDigest>(MAX_DIGESTS);
  /** Held while a spool is opened or removed, or a row rewritten: a spool can be open once. */
  readonly #mutex = createKeyedMutex();

  constructor({metadata, spools, space, lifecycle, coordination, maxHeld, clock}: UploadsParts) {
    this.#metadata = metadata;
    this.#spools = spools;
    this.#space = space;
    this.#lifecycle = lifecycle;
    this.#coordination = coordination;
    this.#maxHeld = maxHeld;
    this.#clock = clock;
  }

  async begin(
    repository: RepositoryKey,
    options: Pick<UploadRecord, 'algorithm' | 'upstream' | 'holder'>,
  ): Promise<UploadRecord> {
    const {holder} = options;
    const begin = () =>
      this.#touch({...options, id: createUploadId(), repository, touchedAt: this.#clock.now()});
    if (holder === undefined) return begin();
    return this.#mutex.run(`uploads of ${holder}`, async () => {
      await this.refuseMore(holder);
      return begin();
    });
  }

  async refuseMore(holder: string | undefined): Promise<void> {
    const most = this.#maxHeld();
    if (holder === undefined || (await this.#metadata.uploadsOf(holder, most)) < most) return;
    throw new OciError('TOOMANYREQUESTS', {
      limit: 'limits.uploads.unfinished',
      message: `${holder} has ${most} uploads that have begun and not ended, which is the most that limits.uploads.unfinished allows: finish or cancel some, wait until they expire (uploads.expireAfter), or raise the limit`,
      headers: {'Retry-After': String(RETRY_AFTER_S)},
    });
  }

  find(repository: RepositoryKey, id: UploadId): Promise<{record: UploadRecord; offset: number}> {
    return this.#mutex.run(id, async () => {
      const record = await this.#recordOf(repository, id);
      const writer = this.#writers.get(id);
      if (writer?.isCancelled) throw unknownUpload(id);
      // The request that is writing touches the row at its end.
      const touched = writer ? record : await this.#touch(record);
      return {record: touched, offset: await this.#spooledBytes(id)};
    });
  }

  async write<T>(
    repository: RepositoryKey,
    id: UploadId,
    work: (upload: OpenUpload) => Promise<T>,
  ): Promise<T> {
    const writer: UploadWriter = {spool: undefined, room: undefined, isCancelled: false};
    const claim = await this.#claim(repository, id, writer);
    let upload: WrittenUpload | undefined;
    try {
      upload = await this.#open(repository, id, writer);
      return await work(upload);
    } finally {
      await this.#close(id, writer, upload, claim);
    }
  }

  cancel(repository: RepositoryKey, id: UploadId): Promise<UploadRecord> {
    return this.#mutex.run(id, async () => {
      const record = await this.#recordOf(repository, id);
      const writer = this.#writers.get(id);
      if (writer?.isCancelled) throw unknownUpload(id);
      if (writer) writer.isCancelled = true;
      else await this.#remove(id);
      return record;
    });
  }

  async sweep(before: number): Promise<UploadRecord[]> {
    const removed: UploadRecord[] = [];
    for (;;) {
      // Those being written are skipped: a request body may take that long.
      const idle = await this.#metadata.idleUploads(before, BATCH + this.#writers.size);
      const expired = [];
      for (const {id} of idle) expired.push(await this.#expire(id, before));
      const gone = expired.filter((record) => record !== undefined);
      removed.push(...gone);
      if (gone.length === 0) return removed;
    }
  }

  /** An upload belongs to the repository in which it began. */
  async #recordOf({registry, name}: RepositoryKey, id: UploadId): Promise<UploadRecord> {
    const record = await this.#metadata.upload(id);
    if (record?.repository.registry === registry && record.repository.name === name) return record;
    throw unknownUpload(id);
  }

  async #touch(record: UploadRecord): Promise<UploadRecord> {
    const upload = {...record, touchedAt: this.#clock.now()};
    await this.#metadata.commit([{type: 'upload.put', upload}]);
    return upload;
  }

  /** The row is removed last, so that bytes on the disk always have a row. */
  async #remove(id: UploadId): Promise<void> {
    this.#digests.delete(id);
    await this.#spools.remove(id);
    await this.#metadata.commit([{type: 'upload.delete', id}]);
  }

  async #spooledBytes(id: UploadId): Promise<number> {
    const open = this.#writers.get(id)?.spool;
    if (open) return open.size;
    const spool = await this.#spools.open(id);
    await spool.close();
    return spool.size;
  }

  /** Waits for an expiry, or the end of an earlier request, which would otherwise pass for a concurrent writer. */
  #claim(repository: RepositoryKey, id: UploadId, writer: UploadWriter): Promise<Claim> {
    return this.#mutex.run(id, async () => {
      await this.#recordOf(repository, id);
      const claim = await this.#coordination.claim(claimKey(id), CLAIM_TTL_MS);
      if (!claim.mine) throw inUse(id);
      this.#writers.set(id, writer);
      return claim;
    });
  }

  /** Reads the row again: another request may have ended the upload since. */
  #open(repository: RepositoryKey, id: UploadId, writer: UploadWriter): Promise<WrittenUpload> {
    return this.#mutex.run(id, async () => {
      const record = await this.#recordOf(repository, id);
      const spool = await this.#spools.open(id);
      writer.spool = spool;
      const room = await this.#space.reservePushed(0, () => spool.size);
      writer.room = room;
      const running = this.#runningDigest(id, spool, record.algorithm ?? 'sha256');
      const [metadata, lifecycle] = [this.#metadata, this.#lifecycle];
      return new WrittenUpload({record, spool, room, running, writer, metadata, lifecycle});
    });
  }

  /** Leaves the bytes for the next request, unless the upload has ended. */
  #close(id: UploadId, writer: UploadWriter, upload: WrittenUpload | undefined, claim: Claim): Promise<void> {
    return this.#mutex.run(id, async () => {
      this.#writers.delete(id);
      try {
        if (upload?.isEnded) return void this.#digests.delete(id);
        await writer.spool?.close();
        if (writer.isCancelled) await this.#remove(id);
        else if (upload) await this.#touch(upload.record);
      } finally {
        writer.room?.release();
        await claim.release();
      }
    });
  }

  #runningDigest(id: UploadId, spool: Spool, algorithm: Algorithm): RunningDigest | undefined {
    const known = this.#digests.get(id);
    if (known?.bytes === spool.size) return known;
    this.#digests.delete(id);
    if (spool.size > 0) return undefined;
    const fresh = {algorithm, digester: createDigester(algorithm), bytes: 0};
    this.#digests.set(id, fresh);
    return fresh;
  }

  /** Removes the upload, unless it was touched after `before` or is being written. @returns what was removed */
  #expire(id: UploadId, before: number): Promise<UploadRecord | undefined> {
    return this.#mutex.run(id, async () => {
      const record = await this.#metadata.upload(id);
      if (record === undefined || record.touchedAt >= before) return undefined;
      const claim = await this.#coordination.claim(claimKey(id), CLAIM_TTL_MS);
      if (!claim.mine) return undefined;
      try {
        await this.#remove(id);
      } finally {
        await claim.release();
      }
      return record;
    });
  }
}

const claimKey = (id: UploadId): string => `upload ${id}`;

/** The bytes of two requests would mix. The specification names no status for it; RFC 9110 has 409. */
const inUse = (id: UploadId): OciError =>
  new OciError('BLOB_UPLOAD_INVALID', {
    status: 409,
    message: `another request is writing upload ${id}: wait until it ends, then send GET to the upload's location to see where it stands`,
  });
