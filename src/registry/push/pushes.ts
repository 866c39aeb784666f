import type {BlobStore} from '../../storage/blob-store.ts';
import {answering} from '../failure.ts';
import type {Route} from '../namespace.ts';
import type {Registry} from '../registries.ts';
import {storing} from './disk.ts';
import type {Push} from './push.ts';

/** The ways of taking what is pushed. */
export interface Pushes {
  /** The way that a registry's policy names; undefined where it takes no pushes. */
  of(registry: Registry): Push | undefined;
}

export interface PushesParts {
  local: Push;
  through: Push;
  store: Pick<BlobStore, 'check'>;
}

export const createPushes = ({local, through, store}: PushesParts): Pushes => {
  const ways = {deny: undefined, local: onStore(local, store), through: onStore(through, store)};
  return {of: ({push}) => ways[push.mode]};
};

/**
 * The same pushes while the blob store is there. What brings content, or asks where an upload stands, is refused while it
 * is missing: the spools of uploads lie on the same disk.
 */
function onStore(push: Push, store: PushesParts['store']): Push {
  const present = <T>(route: Route, verb: () => Promise<T>): Promise<T> =>
    answering(route, async () => {
      await storing(() => store.check());
      return verb();
    });
  return {
    ...push,
    begin: (route, ...rest) => present(route, () => push.begin(route, ...rest)),
    state: (route, ...rest) => present(route, () => push.state(route, ...rest)),
    append: (route, ...rest) => present(route, () => push.append(route, ...rest)),
    finish: (route, ...rest) => present(route, () => push.finish(route, ...rest)),
    putManifest: (route, ...rest) => present(route, () => push.putManifest(route, ...rest)),
  };
}
