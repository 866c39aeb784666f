import {randomUUID} from 'node:crypto';
import {OciError} from './errors.ts';

/** Identifies an upload in progress. Only the client that began it knows it. */
export type UploadId = string & {readonly __brand: 'UploadId'};

const UPLOAD_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

export const createUploadId = (): UploadId => randomUUID() as UploadId;

/**
 * Parses the part of the path after `/blobs/uploads/`.
 * @throws OciError BLOB_UPLOAD_UNKNOWN: an id of another form was not created here.
 */
export function parseUploadId(text: string): UploadId {
  if (UPLOAD_ID.test(text)) return text as UploadId;
  throw unknownUpload(text);
}

/** dist-spec, Error Codes: for an upload that never existed, has ended, or belongs to another repository. */
export const unknownUpload = (id: string): OciError =>
  new OciError('BLOB_UPLOAD_UNKNOWN', {
    message: `there is no upload "${id.slice(0, 80)}" in this repository: it ended, expired or was never begun; begin one with POST /v2/<name>/blobs/uploads/`,
  });

/**
 * dist-spec, Pushing a blob in chunks: the `Range` of an upload with this many bytes. Both ends are inclusive, so an
 * empty upload and one of a single byte look the same.
 */
export const uploadRange = (offset: number): string => `0-${Math.max(0, offset - 1)}`;
