import type {Scope} from '../rig/scope.ts';
import {createRandom} from './random.ts';
import {expectRunning, recover} from './recovery.ts';
import {checkPush} from './requests.ts';
import {createWorld} from './setup.ts';
import {PROCESS_STEPS} from './steps/process.ts';
import type {Step} from './steps/step.ts';
import {UPSTREAM_STEPS} from './steps/upstreams.ts';
import type {Tally} from './tally.ts';
import {traffic} from './traffic.ts';
import type {World} from './world.ts';

export interface RunOptions {
  seed: string;
  /** Milliseconds after which no further step begins, once there were enough kills. */
  duration: number;
  kills: number;
  /** Only the steps whose name contains this. */
  only: string;
  say(line: string): void;
}

const STEPS: readonly Step[] = [...PROCESS_STEPS, ...UPSTREAM_STEPS];

/** Runs steps that the seed chooses, one after the other, until time and kills are enough. */
export async function runSteps(scope: Scope, tally: Tally, options: RunOptions): Promise<World> {
  const {seed, duration, kills, only, say} = options;
  const steps = STEPS.filter(({name}) => name.includes(only));
  const bag = steps.flatMap((step) => Array.from({length: step.weight}, () => step));
  if (bag.length === 0) throw new Error(`no step's name contains ${only}`);
  const began = Date.now();
  const random = createRandom(seed);
  tally.enter('0 start');
  const world = await createWorld(scope, tally);
  await traffic(world, random.fork('start'), 150);
  for (let number = 1; Date.now() - began < duration || tally.of('kill -9') < kills; number++) {
    const own = random.fork(`step ${number}`);
    const step = own.pick(bag);
    tally.enter(`${number} ${step.name}`);
    tally.count(step.fault);
    const at = Date.now();
    await step.run(world, own);
    await expectRunning(world);
    say(`${number} ${step.name}: ${Date.now() - at} ms, ${tally.of('pulls served')} pulls served`);
  }
  tally.enter('the end');
  await recover(world);
  for (const push of world.model.pushes) await checkPush(world, push);
  return world;
}
