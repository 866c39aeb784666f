import type {Random} from '../random.ts';
import {recover, restart} from '../recovery.ts';
import {checkPush} from '../requests.ts';
import {traffic} from '../traffic.ts';
import type {World} from '../world.ts';
import type {Step} from './step.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const ACTS = 40;
const CHECKED = 4;

/** Sets the clock while clients work, restarts with it, and sets it back again. Nothing excuses a failure. */
async function withClock(world: World, random: Random, offset: number): Promise<void> {
  const {server, model} = world;
  await traffic(world, random.fork('before'), ACTS / 2);
  await server.setClock(offset);
  await traffic(world, random.fork('with'), ACTS);
  for (const pushed of model.pushes.slice(-CHECKED)) await checkPush(world, pushed);
  if (random.chance(0.5)) {
    world.condition = {...world.condition, dying: true};
    await server.stop();
    await restart(world);
    await traffic(world, random.fork('restarted'), ACTS / 2);
  }
  await server.setClock(0);
  await traffic(world, random.fork('back'), ACTS / 2);
  await recover(world);
}

const jump = (name: string, fault: string, offsets: readonly number[]): Step => ({
  name,
  fault,
  weight: 3,
  run: (world, random) => withClock(world, random, random.pick(offsets)),
});

export const CLOCK_STEPS: readonly Step[] = [
  jump('the clock jumps forward', 'clock forward', [MINUTE_MS, HOUR_MS, 50 * HOUR_MS]),
  jump('the clock jumps back', 'clock back', [-MINUTE_MS, -HOUR_MS, -50 * HOUR_MS]),
];
