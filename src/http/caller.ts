import {ANONYMOUS, type Caller} from '../caller.ts';
import {OciError} from '../oci/errors.ts';

/**
 * Characters of `Via` that are passed on: about twenty proxies, the latest ones. An upstream may refuse a longer header,
 * and its refusal would reach everybody who shares the answer.
 */
const MAX_VIA_LENGTH = 1024;

/** What is known of a caller without its credential, which the door looks at. */
export function callerOf(via: string | undefined, isLocal: boolean): Caller {
  if (via === undefined) return {...ANONYMOUS, isLocal};
  const entries = via
    .slice(-MAX_VIA_LENGTH)
    .split(',')
    .map((entry) => entry.trim());
  // The first entry of a header that was cut is incomplete.
  return {...ANONYMOUS, isLocal, via: via.length > MAX_VIA_LENGTH ? entries.slice(1) : entries};
}

/**
 * A request that carries our own name in `Via` has gone round in a circle (RFC 9110, section 7.6.3).
 * @throws OciError 508
 */
export function refuseLoop({via}: Caller, pseudonym: string): void {
  if (!via.some((entry) => entry.split(/\s+/)[1] === pseudonym)) return;
  throw new OciError('UNAVAILABLE', {
    status: 508,
    message:
      'this request came back to the proxy that sent it: an upstream in the configuration leads back here',
  });
}
