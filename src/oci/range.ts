/** Bytes `start` to `end`, both inclusive, as in RFC 9110, section 14. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** The number of bytes in a range. */
export const rangeLength = ({start, end}: ByteRange): number => end - start + 1;
