import parse from 'range-parser';
import type {ByteRange} from '../oci/range.ts';

/** `whole`: answer 200 with everything; `unsatisfiable`: answer 416. */
export type RangeVerdict = ByteRange[] | 'whole' | 'unsatisfiable';

/** More parts than this are answered as the whole (RFC 9110, section 14.2 allows to ignore a range). */
const MAX_RANGES = 64;
const BYTES = /^bytes=/i;
const SUFFIX = /(?<=[=,]\s*)-(\d+)/g;

/**
 * Takes a `Range` header and the size of what it is of, in bytes (RFC 9110, section 14). Other units and malformed
 * ranges are ignored; overlapping ranges are merged.
 */
export function rangesOf(header: string | undefined, size: number): RangeVerdict {
  const text = header?.trim();
  if (text === undefined || !BYTES.test(text)) return 'whole';
  // RFC 9110, section 14.1.2: a suffix longer than the content is all of it; range-parser calls it unsatisfiable.
  const bounded = text.replaceAll(SUFFIX, (_, length: string) => `-${Math.min(Number(length), size)}`);
  const parsed = parse(size, bounded, {combine: true});
  if (parsed === -2) return 'whole';
  if (parsed === -1) return 'unsatisfiable';
  return parsed.length > MAX_RANGES ? 'whole' : parsed.map(({start, end}) => ({start, end}));
}
