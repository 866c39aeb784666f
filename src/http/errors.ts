import {OciError} from '../oci/errors.ts';
import type {Answer} from './answer.ts';

export interface ErrorAnswer extends Answer {
  readonly body: Buffer;
  readonly reason: string;
}

/**
 * The answer to an error, in the format of the dist-spec, section "Error Codes". Anything but an OciError is a defect of
 * ours: the client learns the request's id and no more, and the log gets the error's message.
 */
export function errorAnswer(error: unknown, requestId: string | undefined): ErrorAnswer {
  const {code, message, detail, status, headers} =
    error instanceof OciError ? error : new OciError('UNKNOWN');
  const body = JSON.stringify({
    errors: [{code, message, detail: {...detail, ...(requestId === undefined ? {} : {requestId})}}],
  });
  return {
    status,
    headers: {...headers, 'Content-Type': 'application/json'},
    body: Buffer.from(body),
    reason: error instanceof Error ? error.message : String(error),
  };
}
