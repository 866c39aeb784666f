import type {Random} from '../random.ts';
import type {World} from '../world.ts';

/** One fault, with the work around it and the checks after it. */
export interface Step {
  name: string;
  /** The kind of fault under which it is counted; undefined when it injects none of its own. */
  fault: string | undefined;
  /** How often it is chosen, compared with others. */
  weight: number;
  /** What the machine must be able to do for it. */
  needs?: 'small disk' | 'failing disk' | 'clients';
  /** Leaves everything as it was: no fault is left. */
  run(world: World, random: Random): Promise<void>;
}
