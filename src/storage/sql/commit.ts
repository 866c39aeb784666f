import type {Change, Precondition} from '../metadata.ts';
import {blobChanges, blobPreconditions, respectsDeletion} from './blob-changes.ts';
import {blobForgetting} from './blob-forgetting.ts';
import {evictionChanges, evictionPreconditions} from './eviction.ts';
import {journalChanges, leaseChanges, leasePreconditions} from './journal.ts';
import {manifestChanges, manifestPreconditions} from './manifest-changes.ts';
import type {Writes} from './metadata.ts';
import {pinChanges} from './pins.ts';
import {pullChanges} from './pulls.ts';
import {referrerChanges, referrerPreconditions} from './referrer-changes.ts';
import {RepositoryIds} from './repositories.ts';
import {robotChanges} from './robots.ts';
import type {ChangesOf, PreconditionsOf, Steps} from './statement.ts';
import {tagChanges, tagPreconditions} from './tags.ts';
import {uploadChanges} from './uploads.ts';

/**
 * Gives the steps of a commit, for a driver that holds a transaction of which nobody else sees anything yet. They
 * end with false as soon as a precondition does not hold, before anything was changed.
 *
 * SQLite's writer thread runs this: what it imports takes only types from kysely, whose loading would double the start.
 */
export function createCommit(
  writes: Writes,
): (changes: readonly Change[], preconditions: readonly Precondition[]) => Steps<boolean> {
  const repositories = new RepositoryIds(writes);
  const changesOf: ChangesOf<string> = {
    ...manifestChanges(writes, repositories),
    ...referrerChanges(writes, repositories),
    ...tagChanges(writes, repositories),
    ...blobChanges(writes, repositories),
    ...blobForgetting(writes, repositories),
    ...uploadChanges(writes),
    ...journalChanges(writes, repositories),
    ...leaseChanges(writes),
    ...evictionChanges(writes, repositories),
    ...pinChanges(writes),
    ...pullChanges(writes),
    ...robotChanges(writes),
  };
  const preconditionsOf: PreconditionsOf<string> = {
    ...manifestPreconditions(writes, repositories),
    ...referrerPreconditions(writes, repositories),
    ...tagPreconditions(writes, repositories),
    ...blobPreconditions(writes, repositories),
    ...leasePreconditions(writes),
    ...evictionPreconditions(writes, repositories),
  };
  // The compiler does not see that each entry takes what its own key names.
  const apply = (change: Change) => (changesOf[change.type] as (change: Change) => Steps<unknown>)(change);
  const holds = (condition: Precondition) =>
    (preconditionsOf[condition.type] as (condition: Precondition) => Steps<boolean>)(condition);

  return function* commit(changes, preconditions) {
    for (const precondition of preconditions) {
      if (!(yield* holds(precondition))) return false;
    }
    for (const change of changes) {
      if (!(yield* respectsDeletion(writes, change))) return false;
    }
    for (const change of changes) yield* apply(change);
    return true;
  };
}
