import type {Caller} from '../../caller.ts';
import {type Clock, waitAtMost} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {FallbackTags, TagContent} from '../referrers/fallback-tag.ts';

/** What the fallback tags list that clients write themselves (dist-spec, Referrers Tag Schema). */
export interface FallbackEntries {
  /**
   * Fetches the entries of a tag that was written, so that they are found by their edges from then on.
   * @param subjects whose tag it is, as far as is known
   * @param index what stands under the tag now
   * @returns when they are here, or when the patience for it ends; the tag being written, this never fails
   */
  follow(route: Route, subjects: readonly Digest[], index: TagContent, caller: Caller): Promise<void>;
}

export interface FallbackEntriesParts {
  fallbackTags: FallbackTags;
  clock: Clock;
  events: Events;
}

/** Milliseconds that a client who writes a fallback tag waits for its entries: the tag itself is written. */
const PATIENCE = 2000;

export function createFallbackEntries({fallbackTags, clock, events}: FallbackEntriesParts): FallbackEntries {
  /** What could not be fetched of the tag now is found when the list is next asked for. */
  function leave(error: unknown): void {
    if (error instanceof UpstreamFailure) return;
    events.emit('background.failed', {task: 'read the entries of a fallback tag', error});
  }

  return {
    async follow(route, subjects, index, caller) {
      const checking = subjects.map(async (subject) => {
        const {kept} = await fallbackTags.verify(route, subject, index, caller);
        await kept;
      });
      await waitAtMost(PATIENCE, Promise.all(checking).catch(leave), clock);
    },
  };
}
