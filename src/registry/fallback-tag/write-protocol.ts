import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {type FallbackIndex, parseFallbackIndex} from '../../oci/fallback-index.ts';
import {readManifest} from '../../oci/manifest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';

/** The fallback tag of one subject, at an upstream or in a target of the library. */
export interface FallbackTag<State extends TagState> {
  /**
   * Reads the tag, bypassing caches. A tag that does not exist is an index without entries.
   * @returns undefined when the tag points to something other than an index, which must not be overwritten
   */
  read(): Promise<State | undefined>;
  /**
   * Replaces what was read by the same index with these entries, each JSON text by its digest.
   * @returns false when nothing was written because this process may no longer write the tag
   */
  write(before: State, entries: ReadonlyMap<string, string>): Promise<boolean>;
}

export interface TagState {
  readonly index: FallbackIndex;
  /** The registry may have answered with what was there before our last write. */
  readonly isStale: boolean;
}

/** What came of an update, with the index before it and, where it was written and read again, after it. */
export type TagUpdate =
  | {readonly outcome: 'not-an-index'}
  | {readonly outcome: 'unchanged'; readonly before: FallbackIndex}
  | {readonly outcome: 'unconfirmed'; readonly before: FallbackIndex}
  | {readonly outcome: 'written'; readonly before: FallbackIndex; readonly after: FallbackIndex};

/**
 * Updates a fallback tag once: read, merge, write, read again (dist-spec, Referrers Tag Schema). Nothing locks the tag
 * against other writers, so the caller compares `after` with what it wanted, and repeats the update if entries are
 * missing.
 * @param merge gives the entries that the tag should have, from those that it has
 */
export async function updateFallbackTag<State extends TagState>(
  tag: FallbackTag<State>,
  merge: (index: FallbackIndex) => ReadonlyMap<string, string> | Promise<ReadonlyMap<string, string>>,
): Promise<TagUpdate> {
  const state = await tag.read();
  if (!state) return {outcome: 'not-an-index'};
  const before = state.index;
  const entries = await merge(before);
  if (sameKeys(entries, before.entries)) return {outcome: 'unchanged', before};
  if (state.isStale || !(await tag.write(state, entries))) return {outcome: 'unconfirmed', before};
  const written = await tag.read();
  if (!written || written.isStale) return {outcome: 'unconfirmed', before};
  return {outcome: 'written', before, after: written.index};
}

const sameKeys = (one: ReadonlyMap<string, unknown>, other: ReadonlyMap<string, unknown>): boolean =>
  one.size === other.size && one.keys().every((key) => other.has(key));

/**
 * Reads what a subject's fallback tag points to.
 * @param content its `mediaType` counts where the bytes do not name one
 * @returns the index, or a few words that say what it is instead
 */
export function readTagContent(
  subject: Digest,
  {bytes, mediaType}: {bytes: Buffer; mediaType: string | undefined},
): FallbackIndex | string {
  // GitLab resolves the tag to the subject itself.
  if (digestOf(bytes, algorithmOf(subject)) === subject) return 'the subject itself';
  const isIndex = (readManifest(bytes).mediaType ?? mediaType) === OCI_INDEX;
  return (isIndex && parseFallbackIndex(bytes)) || `content of type ${mediaType || 'unknown'}`;
}
