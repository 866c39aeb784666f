import {ERRORS, type ErrorCode, OciError} from '../../oci/errors.ts';
import {StoreMissing} from '../../storage/blob-store.ts';
import {DiskFull} from '../../storage/metadata.ts';
import {UpstreamRefusal, type UpstreamWriter} from '../../upstream/port.ts';
import {answering, diskFailed, SpoolFailed} from '../failure.ts';
import type {Route} from '../namespace.ts';

/** What systems say when there is no room left: the disk is full, or a quota is. */
const NO_ROOM = new Set(['ENOSPC', 'EDQUOT']);

/** Runs what stores something, and tells its client when there is no room for it. */
export async function storing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const said = error instanceof SpoolFailed ? error.cause : error;
    if (said instanceof StoreMissing) throw said;
    if (said instanceof DiskFull) throw diskFailed('the disk is full', error);
    const code = said instanceof Error && 'code' in said ? said.code : undefined;
    if (typeof code !== 'string' || !NO_ROOM.has(code)) throw error;
    throw diskFailed(`the disk is full (${code})`, error);
  }
}

/** What is written, by the codes that speak of it: of what is not there, and of what is wrong. */
export interface Written {
  readonly absent: ErrorCode;
  readonly invalid: ErrorCode;
}

export const UPLOAD: Written = {absent: 'BLOB_UPLOAD_UNKNOWN', invalid: 'BLOB_UPLOAD_INVALID'};
export const BLOB: Written = {absent: 'BLOB_UNKNOWN', invalid: 'DIGEST_INVALID'};
export const MANIFEST: Written = {absent: 'MANIFEST_UNKNOWN', invalid: 'MANIFEST_INVALID'};

/** The writer of the registry that a route leads to. @throws Error where nothing is pushed through: a fault of ours */
export function writerOf({registry}: Route): UpstreamWriter {
  if (registry.push.mode === 'through') return registry.push.writer;
  throw new Error(`registry ${registry.name} does not push through to its upstream`);
}

/** Runs a verb that writes to the upstream; its client hears what that says to it, and of a disk that is full here. */
export function hearing<T>(route: Route, written: Written, verb: () => Promise<T>): Promise<T> {
  const plight = `what changes in ${route.repository.name} is written to the upstream first, and that failed`;
  const heeding = async (): Promise<T> => {
    try {
      return await verb();
    } catch (error) {
      throw error instanceof UpstreamRefusal ? heard(error, route, written) : error;
    }
  };
  return answering(route, () => storing(heeding), plight);
}

/** Ours only ever stand in a 5xx; the others are the specification's 14. */
const OURS = new Set(['UNAVAILABLE', 'UNKNOWN']);
const isSpecified = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code) && !OURS.has(code);

/** The upstream's status, text and, where it is one of the specification's, code. */
function heard(refusal: UpstreamRefusal, {registry, repository}: Route, written: Written): OciError {
  const {status, code, offset} = refusal;
  return new OciError(code !== undefined && isSpecified(code) ? code : fittingCode(status, written), {
    status,
    message: `upstream ${refusal.message}`,
    headers: {
      ...(status === 416 && offset !== undefined ? {Range: rangeOf(offset)} : {}),
      // RFC 9110, section 15.5.6: a 405 says what is allowed; what can be read can be.
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

function fittingCode(status: number, {absent, invalid}: Written): ErrorCode {
  if (status === 404) return absent;
  return status === 405 ? 'UNSUPPORTED' : invalid;
}

/** dist-spec, Pushing a blob in chunks: 416 with the range that is here. The upload stays as it is. */
export const outOfOrder = (offset: number, what: string): OciError =>
  new OciError('BLOB_UPLOAD_INVALID', {
    status: 416,
    message: `${what}, but this upload has ${offset} bytes: send the chunk that begins at byte ${offset}`,
    headers: {Range: rangeOf(offset)},
    detail: {offset},
  });

/** dist-spec, Pushing a blob in chunks: `Range: 0-0` also while nothing is here. */
export const rangeOf = (offset: number): string => `0-${Math.max(0, offset - 1)}`;
