import type {Digest} from '../../oci/digest.ts';
import {ERRORS, type ErrorCode, OciError} from '../../oci/errors.ts';
import {uploadRange} from '../../oci/upload.ts';
import {UpstreamRefusal} from '../../upstream/port.ts';
import {toOciErrors} from '../failure.ts';
import type {Route} from '../namespace.ts';

/** The error codes for what is pushed: it does not exist, or is wrong. */
export interface ErrorCodes {
  readonly unknown: ErrorCode;
  readonly invalid: ErrorCode;
}

export const UPLOAD_CODES: ErrorCodes = {unknown: 'BLOB_UPLOAD_UNKNOWN', invalid: 'BLOB_UPLOAD_INVALID'};
export const BLOB_CODES: ErrorCodes = {unknown: 'BLOB_UNKNOWN', invalid: 'DIGEST_INVALID'};
export const MANIFEST_CODES: ErrorCodes = {unknown: 'MANIFEST_UNKNOWN', invalid: 'MANIFEST_INVALID'};

/**
 * Runs a verb that writes to the upstream. The client receives the upstream's refusal, and 507 when the disk is full
 * here.
 */
export function toThroughErrors<T>(route: Route, codes: ErrorCodes, verb: () => Promise<T>): Promise<T> {
  const consequence = `changes to ${route.repository.name} are written to the upstream first, and that failed`;
  return toOciErrors(route, () => toRefusals(route, codes, verb), consequence);
}

async function toRefusals<T>(route: Route, codes: ErrorCodes, verb: () => Promise<T>): Promise<T> {
  try {
    return await verb();
  } catch (error) {
    throw error instanceof UpstreamRefusal ? refused(error, route, codes) : error;
  }
}

/** Our own codes, which appear only in a 5xx; the others are the 14 of the specification. */
const OUR_CODES = new Set(['UNAVAILABLE', 'UNKNOWN']);
const isSpecified = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code) && !OUR_CODES.has(code);

/** The upstream's status and text, and its code where the specification has it. */
function refused(refusal: UpstreamRefusal, {registry, repository}: Route, codes: ErrorCodes): OciError {
  const {status, code, offset} = refusal;
  return new OciError(code !== undefined && isSpecified(code) ? code : codeFor(status, codes), {
    status,
    message: `upstream ${refusal.message}`,
    headers: {
      ...(status === 416 && offset !== undefined ? {Range: uploadRange(offset)} : {}),
      // RFC 9110, section 15.5.6: a 405 names the allowed methods. Reading is always allowed.
      ...(status === 405 ? {Allow: 'GET, HEAD'} : {}),
    },
    detail: {
      upstream: refusal.host,
      registry: registry.name,
      repository: repository.name,
      ...(code === undefined ? {} : {code}),
      ...(offset === undefined ? {} : {offset}),
    },
    cause: refusal,
  });
}

function codeFor(status: number, {unknown, invalid}: ErrorCodes): ErrorCode {
  if (status === 404) return unknown;
  return status === 405 ? 'UNSUPPORTED' : invalid;
}

/** docker-registry 2.8 stores content that was pushed under a sha512 digest under its sha256 digest only. */
export const storedUnderOtherDigest = (
  {registry}: Route,
  what: 'content' | 'manifest',
  {expected, actual}: {expected: Digest; actual: Digest},
): OciError =>
  new OciError('DIGEST_INVALID', {
    message: `upstream ${registry.upstream.host} stored the ${what} as ${actual} and does not know it as ${expected}: push with the digest algorithm that it uses`,
    detail: {upstream: registry.upstream.host, expected, actual},
  });

/** dist-spec, Pushing a blob in chunks: 416 with the range that is here. The upload stays as it is. */
export const outOfOrder = (offset: number, chunkStart: number): OciError =>
  new OciError('BLOB_UPLOAD_INVALID', {
    status: 416,
    message: `the chunk begins at byte ${chunkStart}, but this upload has ${offset} bytes: send the chunk that begins at byte ${offset}`,
    headers: {Range: uploadRange(offset)},
    detail: {offset},
  });
