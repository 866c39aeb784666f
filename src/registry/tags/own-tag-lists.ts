import type {Caller} from '../../caller.ts';
import {createLru} from '../../lru.ts';
import {fullName, type TagListRecord} from '../../storage/metadata.ts';
import type {Route} from '../namespace.ts';

/**
 * The lists that an upstream gave to each caller, where it takes the callers' own logins: it may show a caller only some of
 * the tags. They are in memory, as approvals are.
 */
export interface OwnTagLists {
  /** @param change the last change of the repository's tags: a list from before it is not returned */
  get(route: Route, caller: Caller, change: symbol | undefined): TagListRecord | undefined;
  /** @param list undefined where the upstream has no such repository for the caller */
  keep(
    route: Route,
    caller: Caller,
    own: {list: TagListRecord | undefined; change: symbol | undefined},
  ): void;
}

interface OwnTagList {
  readonly list: TagListRecord;
  readonly change: symbol | undefined;
}

/** Of all lists together. */
const MAX_BYTES = 16 * 1024 * 1024;
/** What a name takes besides its characters. */
const NAME_BYTES = 32;

const keyOf = ({repository}: Route, {key}: Caller): string => `${key} ${fullName(repository)}`;

export function createOwnTagLists(): OwnTagLists {
  const sizeOf = ({list}: OwnTagList): number =>
    list.names.reduce((bytes, name) => bytes + name.length + NAME_BYTES, NAME_BYTES);
  const lists = createLru<string, OwnTagList>(MAX_BYTES, {sizeOf});
  return {
    get(route, caller, change) {
      const own = lists.get(keyOf(route, caller));
      return own?.change === change ? own?.list : undefined;
    },
    keep(route, caller, {list, change}) {
      const key = keyOf(route, caller);
      if (list) lists.set(key, {list, change});
      else lists.delete(key);
    },
  };
}
