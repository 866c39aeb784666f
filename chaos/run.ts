import type {Scope} from '../rig/scope.ts';
import {checkDescriptors, checkEverything, createCounters} from './invariants.ts';
import {createRandom, type Random} from './random.ts';
import {expectRunning, recover} from './recovery.ts';
import {createWorld} from './setup.ts';
import {CLIENT_STEPS} from './steps/clients.ts';
import {CLOCK_STEPS} from './steps/clock.ts';
import {COLD_STEPS} from './steps/cold.ts';
import {DAMAGE_STEPS} from './steps/damage.ts';
import {DISK_STEPS} from './steps/disk.ts';
import {COLLECTION_STEPS, PROCESS_STEPS} from './steps/process.ts';
import {RESUME_STEPS} from './steps/resume.ts';
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

/** What was used in the last minute is not evicted: between two steps, more than that passes on the server's clock. */
const BETWEEN_STEPS_MS = 90_000;

/** Of what the server printed, after a step in which a promise was broken: characters. */
const OUTPUT_SHOWN = 6000;

/** Steps that end the process come in turn with all others. */
const ENDING: readonly Step[] = [...PROCESS_STEPS, ...RESUME_STEPS];
const OTHERS: readonly Step[] = [
  ...UPSTREAM_STEPS,
  ...COLD_STEPS,
  ...DISK_STEPS,
  ...DAMAGE_STEPS,
  ...CLOCK_STEPS,
  ...CLIENT_STEPS,
  ...COLLECTION_STEPS,
];

/**
 * Runs steps that the seed chooses, one after the other, until time and kills are enough.
 * @returns what could not be injected on this machine, with the reasons.
 */
export async function runSteps(scope: Scope, tally: Tally, options: RunOptions): Promise<readonly string[]> {
  const {seed, duration, kills, only, say} = options;
  const random = createRandom(seed);
  tally.enter('0, the start');
  const world = await createWorld(scope, tally, say);
  const next = createSchedule(world, random.fork('schedule'), only);
  const counters = createCounters();
  await traffic(world, random.fork('start'), 150);
  const began = Date.now();
  for (
    let number = 1;
    Date.now() - began < duration || (tally.faults.get('kill -9') ?? 0) < kills;
    number++
  ) {
    const step = next();
    tally.enter(`${number}, ${step.name}`);
    if (step.fault !== undefined) tally.fault(step.fault);
    const at = Date.now();
    const known = tally.violations.length;
    await world.server.advance(BETWEEN_STEPS_MS);
    await step.run(world, random.fork(`step ${number}`));
    await expectRunning(world);
    await checkDescriptors(world);
    await counters.read(world);
    if (tally.violations.length > known)
      say(`the server's last lines:\n${world.server.output().slice(-OUTPUT_SHOWN)}`);
    say(`${number}, ${step.name}: ${Date.now() - at} ms`);
  }
  tally.enter('the end');
  await recover(world);
  await checkEverything(world);
  for (const {spoiled} of world.upstreams.values()) {
    for (const count of spoiled.values()) tally.count('answers spoiled', count);
  }
  return [...world.disk.lacking, ...world.clients.lacking, ...unresumed(tally)];
}

/** The number of attempts of which at least one must kill a download halfway. */
const ENOUGH_ATTEMPTS = 3;

/** A kill amid a download shows nothing where nothing of it was stored. */
function unresumed({of}: Tally): readonly string[] {
  const attempts = of('attempts to kill a download halfway');
  const isShown = attempts < ENOUGH_ATTEMPTS || of('downloads killed halfway') > 0;
  return isShown ? [] : [`a kill halfway through a download: none of ${attempts} attempts had bytes to keep`];
}

/** Every second step ends the process. The others are drawn as cards are: each comes before one of them comes again. */
function createSchedule(world: World, random: Random, only: string): () => Step {
  const isPossible = ({name, needs}: Step) =>
    name.includes(only) &&
    (needs !== 'small disk' || world.disk.canBeFull) &&
    (needs !== 'failing disk' || world.disk.canFail) &&
    (needs !== 'clients' || world.clients.available.length > 0);
  const ending = ENDING.filter(isPossible);
  const others = OTHERS.filter(isPossible);
  if (ending.length + others.length === 0) throw new Error(`no step's name contains ${only}`);
  const bag = ending.flatMap((step) => Array.from({length: step.weight}, () => step));
  let cards: Step[] = [];
  let drawn = 0;
  return () => {
    drawn += 1;
    if (others.length === 0 || (ending.length > 0 && drawn % 2 === 1)) return random.pick(bag);
    if (cards.length === 0) cards = shuffled(others, random);
    return cards.pop() ?? random.pick(others);
  };
}

/** Steps of a higher weight are more likely to come early. */
const shuffled = (steps: readonly Step[], random: Random): Step[] =>
  steps
    .map((step) => ({step, key: random.fraction() ** (1 / step.weight)}))
    .toSorted((a, b) => a.key - b.key)
    .map(({step}) => step);
