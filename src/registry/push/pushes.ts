import type {Registry} from '../registries.ts';
import type {Push} from './push.ts';

/** The ways of taking what is pushed. */
export interface Pushes {
  /** The way that a registry's policy names; undefined where it takes no pushes. */
  of(registry: Registry): Push | undefined;
}

export const createPushes = ({local, through}: {local: Push; through: Push}): Pushes => {
  const ways = {deny: undefined, local, through};
  return {of: ({push}) => ways[push.mode]};
};
