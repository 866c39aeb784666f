import test from 'ava';
import {ERRORS, type ErrorCode, OciError} from '../../src/oci/errors.ts';

// The distribution-spec 1.1, section "Error Codes", codes 1 to 14, with the status that its sections on the end-points
// name; where several fit (DENIED, NAME_UNKNOWN), the one that RFC 9110 gives the meaning.
const SPEC: Record<string, number> = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 404,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  SIZE_INVALID: 400,
  UNAUTHORIZED: 401,
  DENIED: 403,
  UNSUPPORTED: 405,
  TOOMANYREQUESTS: 429,
};

const codes = Object.keys(ERRORS) as ErrorCode[];

test('the specification’s fourteen codes are all in the table', (t) => {
  t.is(Object.keys(SPEC).length, 14);
  for (const code of Object.keys(SPEC)) t.true(code in ERRORS, code);
});

for (const code of codes) {
  const {status, message} = ERRORS[code];

  test(`${code} is answered with ${status}`, (t) => {
    if (status < 500) t.is(SPEC[code], status, 'a 4xx carries a code of the specification');
    else t.false(code in SPEC, 'no code of the specification is a 5xx by itself');
    t.regex(message, /^\S.*\S$/);
  });

  test(`an error of ${code} has the table's status and message by default`, (t) => {
    const error = new OciError(code);
    t.like(error, {name: 'OciError', code, status, message, detail: undefined, headers: {}});
    t.true(error instanceof Error);
  });
}

test('codes are written as the specification asks: upper case and underscores only', (t) => {
  for (const code of codes) t.regex(code, /^[A-Z_]+$/);
});

test('an error carries its own message, detail, status, headers and cause', (t) => {
  const cause = new Error('below');
  const error = new OciError('BLOB_UPLOAD_INVALID', {
    message: 'bytes 5 to 9 do not follow byte 3',
    detail: {offset: 4},
    status: 416,
    headers: {Range: '0-3'},
    cause,
  });
  t.like(error, {
    code: 'BLOB_UPLOAD_INVALID',
    message: 'bytes 5 to 9 do not follow byte 3',
    detail: {offset: 4},
    status: 416,
    headers: {Range: '0-3'},
  });
  t.is(error.cause, cause);
});
