/**
 * The error codes of the OCI distribution-spec 1.1 (section "Error Codes") with their statuses, and two codes of our own
 * that appear only in a 5xx or in an answer outside the specification.
 */
export const ERRORS = {
  BLOB_UNKNOWN: {status: 404, message: 'blob unknown to registry'},
  BLOB_UPLOAD_INVALID: {status: 400, message: 'blob upload invalid'},
  BLOB_UPLOAD_UNKNOWN: {status: 404, message: 'blob upload unknown to registry'},
  DIGEST_INVALID: {status: 400, message: 'provided digest did not match uploaded content or is malformed'},
  MANIFEST_BLOB_UNKNOWN: {status: 404, message: 'manifest references a manifest or blob unknown to registry'},
  MANIFEST_INVALID: {status: 400, message: 'manifest invalid'},
  MANIFEST_UNKNOWN: {status: 404, message: 'manifest unknown to registry'},
  NAME_INVALID: {status: 400, message: 'invalid repository name'},
  NAME_UNKNOWN: {status: 404, message: 'repository name not known to registry'},
  SIZE_INVALID: {status: 400, message: 'provided length did not match content length'},
  UNAUTHORIZED: {status: 401, message: 'authentication required'},
  DENIED: {status: 403, message: 'requested access to the resource is denied'},
  UNSUPPORTED: {status: 405, message: 'the operation is unsupported'},
  TOOMANYREQUESTS: {status: 429, message: 'too many requests'},
  UNAVAILABLE: {status: 503, message: 'the upstream registry cannot be asked at the moment'},
  UNKNOWN: {status: 500, message: 'unexpected fault of this server'},
} as const;

export type ErrorCode = keyof typeof ERRORS;

export interface OciErrorOptions {
  /** What is wrong, where, what is allowed, what to do. Defaults to the code's general message. */
  message?: string;
  /** Facts for programs: the error's `detail`. */
  detail?: Record<string, unknown>;
  /** Overrides the code's usual status, e.g. 416 or 414. */
  status?: number;
  /** Response headers that belong to the error: `Allow`, `Retry-After`, `Content-Range`. */
  headers?: Record<string, string>;
  /** The setting that allows no more, by its path in docs/reference.md. It becomes part of `detail`, and is counted. */
  limit?: string;
  cause?: unknown;
}

/** An error for the client. Thrown anywhere; only `http/errors.ts` turns it into a response. */
export class OciError extends Error {
  override readonly name = 'OciError';
  readonly code: ErrorCode;
  readonly status: number;
  readonly detail: Record<string, unknown> | undefined;
  readonly headers: Record<string, string>;
  readonly limit: string | undefined;

  constructor(code: ErrorCode, options: OciErrorOptions = {}) {
    super(options.message ?? ERRORS[code].message, {cause: options.cause});
    this.code = code;
    this.status = options.status ?? ERRORS[code].status;
    this.detail = options.limit === undefined ? options.detail : {...options.detail, limit: options.limit};
    this.limit = options.limit;
    this.headers = options.headers ?? {};
  }
}
