import type {Digest} from '../oci/digest.ts';

/** A strong validator: the digest is the content. */
export const etagOf = (digest: Digest): string => `"${digest}"`;

/** RFC 9110, section 13.1.2: weak comparison against each member of the list, or `*`. */
export function noneMatch(ifNoneMatch: string | undefined, digest: Digest): boolean {
  if (ifNoneMatch === undefined) return false;
  const members = ifNoneMatch.split(',').map((member) => member.trim().replace(/^W\//, ''));
  return members.includes('*') || members.includes(etagOf(digest)) || members.includes(digest);
}

/** RFC 9110, section 13.1.5: a range counts only while the strong validator is the same; a date never proves that. */
export const ifRangeHolds = (ifRange: string | undefined, digest: Digest): boolean =>
  ifRange === undefined || ifRange.trim() === etagOf(digest);
