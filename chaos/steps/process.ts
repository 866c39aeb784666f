import {setTimeout as delay} from 'node:timers/promises';
import type {Random} from '../random.ts';
import {recover, restart} from '../recovery.ts';
import {checkPush} from '../requests.ts';
import {traffic} from '../traffic.ts';
import type {World} from '../world.ts';
import type {Step} from './step.ts';

const MAX_LIFE_MS = 700;
const ENOUGH_ACTS = 10_000;
const CHECKED = 4;
const ACTS = 60;

/** Those that change the store of a running server. */
const COMMANDS = [['verify'], ['gc', '--grace', '1h'], ['reindex']];

/**
 * Ends the process in the middle of everything, starts it again, and looks for what was pushed last.
 * @param command that runs beside it: it opens the store itself when it finds the server dead, so the next server waits
 */
async function endAmidTraffic(
  world: World,
  random: Random,
  how: 'kill' | 'stop',
  command: Promise<unknown> = Promise.resolve(),
): Promise<void> {
  const ending = new AbortController();
  const running = traffic(world, random.fork('traffic'), ENOUGH_ACTS, ending.signal);
  await delay(random.integer(1, MAX_LIFE_MS));
  world.condition = {...world.condition, dying: true};
  ending.abort();
  await world.server[how]();
  await Promise.all([running, command]);
  await restart(world);
  for (const push of world.model.pushes.slice(-CHECKED)) await checkPush(world, push);
}

/** Collects what deleted pushes have left, while others push. */
async function collectAmidTraffic(world: World, random: Random): Promise<void> {
  const [collected] = await Promise.all([
    world.server.command('gc', '--grace', '1m', '--json'),
    traffic(world, random.fork('traffic'), ACTS),
  ]);
  const {output, succeeded} = collected;
  if (!succeeded) world.tally.violate('answers that no failure explains', `gc: ${output}`);
  for (const push of world.model.pushes.slice(-CHECKED)) await checkPush(world, push);
}

export const COLLECTION_STEPS: readonly Step[] = [
  {name: 'garbage collection amid traffic', fault: undefined, weight: 3, run: collectAmidTraffic},
];

export const PROCESS_STEPS: readonly Step[] = [
  {
    name: 'kill -9',
    fault: 'kill -9',
    weight: 40,
    run: (world, random) => endAmidTraffic(world, random, 'kill'),
  },
  {
    name: 'kill -9 while an upstream sends',
    fault: 'kill -9',
    weight: 10,
    async run(world, random) {
      for (const upstream of world.upstreams.values()) upstream.throttle(200_000);
      await endAmidTraffic(world, random, 'kill');
      for (const upstream of world.upstreams.values()) upstream.throttle(undefined);
    },
  },
  {
    name: 'kill -9 during a command',
    fault: 'kill -9',
    weight: 6,
    async run(world, random) {
      const command = random.pick(COMMANDS);
      await endAmidTraffic(world, random, 'kill', world.server.command(...command));
    },
  },
  {
    name: 'kill -9 while it starts',
    fault: 'kill -9',
    weight: 6,
    async run(world, random) {
      world.condition = {...world.condition, dying: true};
      await world.server.kill();
      const starting = world.server.start().catch(() => undefined);
      await delay(random.integer(50, MAX_LIFE_MS));
      await world.server.kill();
      await starting;
      await restart(world);
      for (const push of world.model.pushes.slice(-CHECKED)) await checkPush(world, push);
    },
  },
  {
    name: 'SIGTERM',
    fault: 'SIGTERM amid transfers',
    weight: 6,
    async run(world, random) {
      await endAmidTraffic(world, random, 'stop');
      await recover(world);
    },
  },
];
