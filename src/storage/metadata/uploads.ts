import type {Algorithm} from '../../oci/digest.ts';
import type {UploadId} from '../../oci/upload.ts';
import type {RepositoryKey} from './repositories.ts';

/** An upload under way. */
export interface UploadRecord {
  id: UploadId;
  repository: RepositoryKey;
  /** Of the digest to come, if the client announced it when it began. */
  algorithm: Algorithm | undefined;
  /** The upstream's session that its bytes go to; undefined where they are kept here alone. */
  upstream: {location: string; offset: number; minChunk: number | undefined} | undefined;
  /** Under which name it counts among the unfinished uploads of one caller; undefined where it does not. */
  holder?: string | undefined;
  /** When the client last sent a request for it. */
  touchedAt: number;
}

export type UploadChange = {type: 'upload.put'; upload: UploadRecord} | {type: 'upload.delete'; id: UploadId};

export interface UploadReads {
  upload(id: UploadId): Promise<UploadRecord | undefined>;
  /** How many uploads count under this name, up to `limit`. */
  uploadsOf(holder: string, limit: number): Promise<number>;
  /** Uploads that were last touched before `before`, oldest first. */
  idleUploads(before: number, limit: number): Promise<UploadRecord[]>;
}
