import {OciError} from '../oci/errors.ts';

export interface ErrorAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/**
 * The answer to a fault, in the format of the dist-spec, section "Error Codes". What is no OciError is a fault of
 * ours and tells the client no more than the request's id.
 */
export function errorAnswer(error: unknown, requestId: string | undefined): ErrorAnswer {
  const {code, message, detail, status, headers} =
    error instanceof OciError ? error : new OciError('UNKNOWN');
  const body = JSON.stringify({
    errors: [{code, message, detail: {...detail, ...(requestId === undefined ? {} : {requestId})}}],
  });
  return {status, headers: {...headers, 'Content-Type': 'application/json'}, body};
}
