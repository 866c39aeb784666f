import type {IncomingMessage} from 'node:http';
import {OciError} from '../oci/errors.ts';

/** A longer request target is answered with 414 (RFC 9110, section 15.5.15). */
const TARGET_LIMIT = 8 * 1024;

/** @throws OciError with status 414 */
export function refuseOverlong(target: string): void {
  if (target.length <= TARGET_LIMIT) return;
  throw new OciError('NAME_INVALID', {
    status: 414,
    message: `the request target has ${target.length} characters; at most ${TARGET_LIMIT} are read`,
  });
}

const ABSOLUTE = /^https?:\/\/([^/?#]+)(.*)$/is;

/** A request target in origin-form, with the host that it names itself. */
export interface Target {
  /** Path and query; begins with a slash. */
  path: string;
  /** Goes before the `Host` header; undefined where the target names none. */
  host: string | undefined;
}

/**
 * Takes origin-form, and absolute-form as clients send it to proxies (RFC 9112, section 3.2).
 * @throws OciError 400 for every other form
 */
export function parseTarget(target: string): Target {
  if (target.startsWith('/')) return {path: target, host: undefined};
  const [, host, rest = ''] = ABSOLUTE.exec(target) ?? [];
  if (host !== undefined) return {path: rest.startsWith('/') ? rest : `/${rest}`, host};
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the request target "${target.slice(0, 80)}" is neither a path nor a whole http URL; begin it with /v2/`,
  });
}

/** @throws OciError 400 without the one `Host` that HTTP/1.1 demands (RFC 9112, section 3.2) */
export function refuseHosts({httpVersion, rawHeaders}: IncomingMessage): void {
  const given = rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === 'host').length;
  if (given === 1 || (given === 0 && httpVersion === '1.0')) return;
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the request has ${given} Host headers; HTTP/${httpVersion} demands exactly one`,
  });
}

/** The one value of a query parameter; undefined when it is absent. @throws OciError 400 when it is there twice */
export function singleParameter(value: string | string[] | undefined, name: string): string | undefined {
  if (!Array.isArray(value)) return value;
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the query parameter "${name}" is given ${value.length} times; give it once`,
  });
}

/** `n` of a listing: a whole number, 0 or more. @throws OciError 400 */
export function parseCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new OciError('UNSUPPORTED', {
    status: 400,
    message: `the query parameter n is "${text.slice(0, 40)}"; give a whole number, 0 or more`,
  });
}
