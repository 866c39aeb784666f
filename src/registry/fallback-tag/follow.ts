import type {Caller} from '../../caller.ts';
import {type Clock, waitAtMost} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {type Digest, isDigest} from '../../oci/digest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import type {Tag} from '../../oci/name.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {FallbackTags, TagContent} from '../referrers/fallback-tag.ts';

/** The entries of fallback tags that clients write themselves (dist-spec, Referrers Tag Schema). */
export interface FallbackEntries {
  /**
   * Fetches the entries of a manifest that was pushed with these tags, if it is the index of a fallback tag. From then
   * on, the entries are found by their own subjects.
   * @returns the known subjects that it lists referrers of, when the entries are here or after two seconds. Never fails,
   * because the tag itself is written.
   */
  follow(route: Route, tags: readonly Tag[], pushed: TagContent, caller: Caller): Promise<readonly Digest[]>;
  /** The known subjects that this may be the fallback tag of. */
  subjectsOf(route: Route, tag: Tag): Promise<readonly Digest[]>;
}

export interface FallbackEntriesParts {
  metadata: Metadata;
  fallbackTags: FallbackTags;
  clock: Clock;
  events: Events;
}

/** How long a client that writes a fallback tag waits for its entries. */
const FOLLOW_TIMEOUT_MS = 2000;

/** Whether this is the list of referrers that clients maintain where there is no Referrers API. */
export const isFallbackIndex = (
  {mediaType}: {mediaType: string | undefined},
  tags: readonly Tag[],
): boolean => mediaType === OCI_INDEX && tags.some((tag) => subjectPrefix(tag) !== undefined);

export function createFallbackEntries({
  metadata,
  fallbackTags,
  clock,
  events,
}: FallbackEntriesParts): FallbackEntries {
  async function subjectsOf(route: Route, tag: Tag): Promise<readonly Digest[]> {
    const prefix = subjectPrefix(tag);
    if (prefix === undefined || route.registry.referrers.mode === 'off') return [];
    return isDigest(prefix) ? [prefix] : metadata.referrerSubjects(route.repository, prefix);
  }

  /** Entries that could not be fetched are found when the list is next asked for. */
  function ignoreUpstream(error: unknown): void {
    if (error instanceof UpstreamFailure) return;
    events.emit('background.failed', {task: 'read the entries of a fallback tag', error});
  }

  return {
    subjectsOf,

    async follow(route, tags, pushed, caller) {
      if (route.registry.referrers.mode === 'off' || !isFallbackIndex(pushed, tags)) return [];
      const subjects = (await Promise.all(tags.map((tag) => subjectsOf(route, tag)))).flat();
      // A tag has half of a sha512 digest. For a subject that is not known yet, half is enough to fetch the entries.
      const halves = tags.map(subjectPrefix).filter((prefix) => prefix !== undefined) as Digest[];
      const fetching = (subjects.length > 0 ? subjects : halves).map(async (subject) => {
        const {kept} = await fallbackTags.verify(route, subject, pushed, caller);
        await kept;
      });
      await waitAtMost(FOLLOW_TIMEOUT_MS, Promise.all(fetching).catch(ignoreUpstream), clock);
      return subjects;
    },
  };
}
