import type {Random} from '../random.ts';
import type {World} from '../world.ts';

/** One fault, with the work around it and the checks after it. */
export interface Step {
  name: string;
  /** How many faults of which kind it injects is counted under this name. */
  fault: string;
  /** How often it is chosen, compared with others. */
  weight: number;
  /** Leaves everything as it was: no fault is left. */
  run(world: World, random: Random): Promise<void>;
}
