import type {ProxyAnswer} from '../support/backref.ts';

/** The distribution-spec 1.1, section "Error Codes": all of them. */
export const SPEC_CODES: readonly string[] = [
  'BLOB_UNKNOWN',
  'BLOB_UPLOAD_INVALID',
  'BLOB_UPLOAD_UNKNOWN',
  'DIGEST_INVALID',
  'MANIFEST_BLOB_UNKNOWN',
  'MANIFEST_INVALID',
  'MANIFEST_UNKNOWN',
  'NAME_INVALID',
  'NAME_UNKNOWN',
  'SIZE_INVALID',
  'UNAUTHORIZED',
  'DENIED',
  'UNSUPPORTED',
  'TOOMANYREQUESTS',
];

export interface ErrorEntry {
  code: string;
  message: string;
  detail: Record<string, unknown>;
}

/** The one error of an answer's body. @throws when the body is not of the specification's format */
export function errorOf({
  headers,
  body,
}: Pick<ProxyAnswer, 'body'> & {headers: ProxyAnswer['headers'] | Record<string, string>}): ErrorEntry {
  if (headers['content-type'] !== 'application/json')
    throw new Error(`the error's Content-Type is ${headers['content-type']}`);
  const {errors, ...rest} = JSON.parse(body.toString()) as {errors: ErrorEntry[]};
  const [error, ...more] = errors;
  if (!error || more.length > 0 || Object.keys(rest).length > 0) throw new Error(`no single error: ${body}`);
  if (typeof error.message !== 'string' || error.message === '') throw new Error(`no message: ${body}`);
  return error;
}
