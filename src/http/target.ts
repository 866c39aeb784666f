import {OciError} from '../oci/errors.ts';

/** A longer request target is answered with 414 (RFC 9110, section 15.5.15). */
export const TARGET_LIMIT = 8 * 1024;

/** @throws OciError with status 414 */
export function refuseOverlong(target: string): void {
  if (target.length <= TARGET_LIMIT) return;
  throw new OciError('NAME_INVALID', {
    status: 414,
    message: `the request target has ${target.length} characters; at most ${TARGET_LIMIT} are read`,
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
