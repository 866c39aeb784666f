import {type Algorithm, type Digest, type Digester, digestOfAll} from '../../oci/digest.ts';
import {unknownUpload} from '../../oci/upload.ts';
import {DiskFailed} from '../../storage/disk.ts';
import type {Change, Metadata, UploadRecord} from '../../storage/metadata.ts';
import type {Spool} from '../../storage/spool.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import {diskTookPart} from '../failure.ts';
import type {Reservation} from '../space.ts';

/** An upload while one request writes it. */
export interface OpenUpload {
  readonly record: UploadRecord;
  /** Bytes received, by this request and by earlier ones. */
  readonly offset: number;
  /** Reserves room for so many bytes more. @throws NoRoom when the disk does not have it */
  reserve(bytes: number): Promise<void>;
  /**
   * Appends bytes, which must not be changed afterwards. Resolves when more may follow.
   * @throws OciError BLOB_UPLOAD_UNKNOWN when the upload was cancelled meanwhile; errors of the file system
   */
  append(bytes: Uint8Array): Promise<void>;
  /** Ends the writing. @throws OciError with 507 when the disk did not take all bytes */
  close(): Promise<void>;
  /** The digest of all bytes received: the running one if it fits, else the spool is read again. */
  digest(algorithm: Algorithm): Promise<Digest>;
  /** Records the state of the upstream's session for this upload. */
  recordSession(session: NonNullable<UploadRecord['upstream']>): Promise<void>;
  /**
   * Ends the upload: its content becomes a stored blob, durably, in one commit with `also`.
   * @param digest the verified digest of the content
   */
  publish(digest: Digest, also: readonly Change[]): Promise<void>;
  /** Ends the upload and removes its bytes. */
  discard(): Promise<void>;
}

/** A digest of the first bytes of a spool. */
export interface RunningDigest {
  readonly algorithm: Algorithm;
  readonly digester: Digester;
  /** Bytes digested; `USED_UP` once the digester has given its digest. */
  bytes: number;
}
const USED_UP = -1;

/** The one request that writes an upload. */
export interface UploadWriter {
  /** Set once the request has opened it. */
  spool: Spool | undefined;
  room: Reservation | undefined;
  isCancelled: boolean;
}

interface WrittenUploadParts {
  record: UploadRecord;
  spool: Spool;
  room: Reservation;
  /** Undefined where the spool has bytes that no digest was kept of. */
  running: RunningDigest | undefined;
  writer: UploadWriter;
  metadata: Metadata;
  lifecycle: BlobLifecycle;
}

export class WrittenUpload implements OpenUpload {
  readonly #id: UploadRecord['id'];
  readonly #spool: Spool;
  readonly #room: Reservation;
  readonly #running: RunningDigest | undefined;
  readonly #writer: UploadWriter;
  readonly #metadata: Metadata;
  readonly #lifecycle: BlobLifecycle;
  #record: UploadRecord;
  #offset: number;
  #isEnded = false;

  constructor({record, spool, room, running, writer, metadata, lifecycle}: WrittenUploadParts) {
    this.#id = record.id;
    this.#spool = spool;
    this.#room = room;
    this.#running = running;
    this.#writer = writer;
    this.#metadata = metadata;
    this.#lifecycle = lifecycle;
    this.#record = record;
    this.#offset = spool.size;
  }

  get record(): UploadRecord {
    return this.#record;
  }

  get offset(): number {
    return this.#offset;
  }

  /** True once it was published or discarded. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  async reserve(bytes: number): Promise<void> {
    await this.#room.grow(this.#offset + bytes);
  }

  async append(bytes: Uint8Array): Promise<void> {
    if (this.#writer.isCancelled) throw unknownUpload(this.#id);
    this.#offset += bytes.length;
    if (this.#running) {
      this.#running.digester.update(bytes);
      this.#running.bytes = this.#offset;
    }
    await this.#spool.append(bytes);
  }

  async close(): Promise<void> {
    await this.#spool.close();
    const {size, failure} = this.#spool;
    if (size < this.#offset && failure instanceof DiskFailed) throw failure;
    if (size < this.#offset) {
      throw diskTookPart(`the disk took ${size} of the ${this.#offset} bytes of upload ${this.#id}`);
    }
  }

  async digest(algorithm: Algorithm): Promise<Digest> {
    const running = this.#running;
    if (running?.algorithm === algorithm && running.bytes === this.#offset) {
      running.bytes = USED_UP;
      return running.digester.digest();
    }
    await this.#spool.flush();
    return digestOfAll(this.#spool.read(0, this.#offset), algorithm);
  }

  async recordSession(session: NonNullable<UploadRecord['upstream']>): Promise<void> {
    this.#record = {...this.#record, upstream: session};
    await this.#metadata.commit([{type: 'upload.put', upload: this.#record}]);
  }

  async publish(digest: Digest, also: readonly Change[]): Promise<void> {
    if (this.#writer.isCancelled) throw unknownUpload(this.#id);
    await this.#lifecycle.publish(digest, this.#spool, [...also, {type: 'upload.delete', id: this.#id}]);
    this.#isEnded = true;
  }

  async discard(): Promise<void> {
    await this.#spool.discard();
    // A row that cannot be removed now describes an empty upload, and expires.
    this.#isEnded = true;
    await this.#metadata.commit([{type: 'upload.delete', id: this.#id}]);
  }
}
