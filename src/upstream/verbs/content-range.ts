/** What a 206 or 416 says about the bytes in its body. */
export interface ContentRange {
  /** Offsets of the first and last byte of the body; undefined in a 416. */
  start: number | undefined;
  end: number | undefined;
  /** Bytes of the whole; undefined when the upstream does not say. */
  size: number | undefined;
}

const FIELD = /^bytes\s+(?:(\d{1,15})-(\d{1,15})|\*)\/(?:(\d{1,15})|\*)$/i;

/** Reads `Content-Range` (RFC 9110, section 14.4); undefined when it is missing, malformed or contradicts itself. */
export function parseContentRange(field: string | undefined): ContentRange | undefined {
  const match = FIELD.exec(field?.trim() ?? '');
  if (!match) return undefined;
  const [start, end, size] = match
    .slice(1)
    .map((digits) => (digits === undefined ? undefined : Number(digits)));
  if (start !== undefined && end !== undefined) {
    if (start > end || (size !== undefined && end >= size)) return undefined;
  }
  return {start, end, size};
}
