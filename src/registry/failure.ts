import {errorCode, isRefusedByDisk} from '../error-code.ts';
import type {Digest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import type {Reference} from '../oci/name.ts';
import {StoreMissing} from '../storage/blob-store.ts';
import {DiskFailed, type StoredPart} from '../storage/disk.ts';
import {DiskFull, type DiskProblem} from '../storage/metadata.ts';
import {UpstreamFailure} from '../upstream/port.ts';
import type {Route} from './namespace.ts';

/** The blob is not at the upstream that was asked. */
export class BlobAbsent extends Error {
  override readonly name = 'BlobAbsent';
}

/** The spool cannot be written: the disk is full or broken. */
export class SpoolFailed extends Error {
  override readonly name = 'SpoolFailed';
}

/** The upstream's bytes do not have the blob's digest. */
export class DigestMismatch extends Error {
  override readonly name = 'DigestMismatch';
}

/** How long a client is asked to wait where the upstream does not say. */
const RETRY_AFTER_S = 5;

/** What failed at an upstream or at the disk, in a sentence; undefined for a bug. */
export const failureReason = (error: unknown): string | undefined =>
  error instanceof UpstreamFailure ||
  error instanceof DigestMismatch ||
  error instanceof SpoolFailed ||
  error instanceof StoreMissing ||
  error instanceof DiskFailed ||
  error instanceof DiskFull
    ? error.message
    : undefined;

/**
 * For a client whose range fits the size that a manifest names but not the one that the upstream names: 416 would be
 * final, and the upstream may be wrong.
 * @param sizes in bytes
 */
export const sizeInDispute = (digest: Digest, sizes: {named: number; promised: number}): OciError =>
  new OciError('UNAVAILABLE', {
    message: `the upstream names a length of ${sizes.named} bytes for ${digest}, and a manifest names ${sizes.promised}: the range can be neither served nor refused`,
    detail: {digest, ...sizes},
    headers: {'Retry-After': String(RETRY_AFTER_S)},
  });

export const manifestUnknown = ({registry, asked}: Route, reference: Reference): OciError =>
  new OciError('MANIFEST_UNKNOWN', {
    message: `${registry.upstream.host} has no manifest ${reference} in ${asked}`,
    detail: {name: asked, reference, upstream: registry.upstream.host},
  });

const MAKE_SPACE = 'this registry has no space for it; free some, or ask the operator to, and try again';

const DISK_PROBLEMS: Record<DiskProblem, string> = {
  full: `the disk is full: ${MAKE_SPACE}`,
  failing: `the disk is full, a quota is used up, or the disk fails: ${MAKE_SPACE}`,
  'read-only': 'the disk of this registry is read-only: report it to the operator, and try again later',
};

/** For the client of a registry that cannot store what it has to (RFC 4918, section 11.5: Insufficient Storage). */
const insufficientStorage = (message: string, cause?: unknown): OciError =>
  new OciError('UNKNOWN', {status: 507, message, cause});

/** For what the disk did not take. */
const diskRefused = (problem: DiskProblem, cause: unknown): OciError =>
  insufficientStorage(DISK_PROBLEMS[problem], cause);

/** For a disk that took only a part. @param what it took, in a sentence */
export const diskTookPart = (what: string): OciError => insufficientStorage(`${what}: ${MAKE_SPACE}`);

/** For the client of a registry whose blob store is missing. The details are in the operator's log. */
const storeMissing = (cause: StoreMissing): OciError =>
  new OciError('UNAVAILABLE', {
    message:
      'the blob store of this registry is missing at the moment: try again later, or report it to the operator',
    headers: {'Retry-After': String(RETRY_AFTER_S)},
    cause,
  });

const WHAT_FAILS: Record<StoredPart, string> = {
  blobs: 'the disk that holds the blobs of this registry',
  metadata: 'the disk that holds the metadata of this registry',
};

/** For the client of a registry whose disk fails. The details are in the operator's log. */
const diskFailed = (cause: DiskFailed): OciError =>
  new OciError('UNAVAILABLE', {
    message: `${WHAT_FAILS[cause.part]} fails at the moment: try again later, or report it to the operator`,
    headers: {'Retry-After': String(RETRY_AFTER_S)},
    cause,
  });

/** The client's error for a disk that is missing, failing, full or read-only; undefined for any other error. */
export function storageError(error: unknown): OciError | undefined {
  const reason = error instanceof SpoolFailed ? error.cause : error;
  if (reason instanceof StoreMissing) return storeMissing(reason);
  if (reason instanceof DiskFailed) return diskFailed(reason);
  if (reason instanceof DiskFull) return diskRefused(reason.problem, error);
  if (!isRefusedByDisk(reason)) return undefined;
  return diskRefused(errorCode(reason) === 'EROFS' ? 'read-only' : 'full', error);
}

/** For the client of a blob that is not here, and of which the upstream sends other bytes. */
const wrongBytes = (cause: DigestMismatch, consequence: string): OciError =>
  new OciError('UNAVAILABLE', {
    message: `${consequence}: ${cause.message}`,
    headers: {'Retry-After': String(RETRY_AFTER_S)},
    cause,
  });

/**
 * Runs a verb, and turns an upstream that could not be asked, and a disk that is missing, failing, full or read-only, into
 * the client's errors.
 * @param consequence what an upstream's failure means for the client; by default, what it means for a pull
 */
export async function toOciErrors<T>(
  route: Route,
  verb: () => Promise<T>,
  consequence = `no whole copy from ${route.repository.name} is cached here and the upstream cannot be asked`,
): Promise<T> {
  try {
    return await verb();
  } catch (error) {
    if (error instanceof DigestMismatch) throw wrongBytes(error, consequence);
    if (error instanceof UpstreamFailure) throw refusal(error, route, consequence);
    throw storageError(error) ?? error;
  }
}

/**
 * The error for a miss that cannot be filled. Never an absence, and never a 401 for our own credentials: clients would
 * prompt for theirs, or send them.
 */
function refusal(failure: UpstreamFailure, {registry, repository}: Route, consequence: string): OciError {
  const detail = {
    upstream: failure.host,
    registry: registry.name,
    repository: repository.name,
    kind: failure.kind,
  };
  const options = {detail, cause: failure};
  if (failure.kind === 'denied' || failure.kind === 'credentials') {
    return new OciError('DENIED', {...options, message: `upstream ${failure.message}`});
  }
  if (failure.kind === 'loop') {
    return new OciError('UNAVAILABLE', {...options, status: 508, message: `upstream ${failure.message}`});
  }
  const seconds =
    failure.retryAfter === undefined ? RETRY_AFTER_S : Math.max(1, Math.ceil(failure.retryAfter / 1000));
  const headers = {'Retry-After': String(seconds)};
  if (failure.kind === 'throttled' && registry.rateLimitStatus === 429) {
    return new OciError('TOOMANYREQUESTS', {...options, headers, message: `upstream ${failure.message}`});
  }
  return new OciError('UNAVAILABLE', {
    ...options,
    headers,
    message: `${consequence}: ${failure.message}`,
  });
}
