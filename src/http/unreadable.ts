import {OciError} from '../oci/errors.ts';
import type {LimitSettings} from './limits.ts';

/** No request has begun in time: the error that node's HTTP server has for it. */
export const LATE: NodeJS.ErrnoException = Object.assign(new Error('Request timeout'), {
  code: 'ERR_HTTP_REQUEST_TIMEOUT',
});

/** The answer to CONNECT. */
export const NO_TUNNEL = new OciError('UNSUPPORTED', {
  message: 'CONNECT is not supported here; supported are GET, HEAD',
  headers: {Allow: 'GET, HEAD'},
});

/** The answer to what node's parser refuses, which never reaches the application. @param error the parser's */
export function unreadable(
  {code, message}: NodeJS.ErrnoException,
  {size, timeout}: LimitSettings['headers'],
): OciError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new OciError('UNSUPPORTED', {
      status: 431,
      limit: 'limits.headers.size',
      message: `the request's headers are longer than the ${size} bytes that limits.headers.size allows`,
    });
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new OciError('UNSUPPORTED', {
      status: 408,
      limit: 'limits.headers.timeout',
      message: `the request's headers did not arrive within the ${timeout / 1000} s of limits.headers.timeout`,
    });
  }
  return new OciError('UNSUPPORTED', {
    status: 400,
    message: `this is not a readable HTTP request: ${message}`,
  });
}
