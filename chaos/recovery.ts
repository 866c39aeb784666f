import {setTimeout as delay} from 'node:timers/promises';
import type {Artifact} from './catalog.ts';
import {pullImage} from './requests.ts';
import {CALM, type World} from './world.ts';

/** A fault ends, but its effects last: circuits are open for a second, and a rate limit as long as it says. */
const RECOVERY_MS = 20_000;

/** Waits until an image of each repository can be pulled, which counts as a violation when it takes too long. */
export async function recover(world: World): Promise<void> {
  const {condition, tally} = world;
  if (!world.server.isRunning()) await restart(world);
  world.condition = {...condition, dying: false, upstreams: condition.upstreams ?? 'an upstream has failed'};
  const deadline = Date.now() + RECOVERY_MS;
  for (const [registry, image] of oneOfEachRepository(world)) {
    while (!(await pullImage(world, registry, image))) {
      if (Date.now() > deadline) {
        tally.violate(
          'unavailable without a reason',
          `${registry}/${image.repository} cannot be pulled from ${RECOVERY_MS / 1000} s after a fault`,
        );
        break;
      }
      await delay(100);
    }
  }
  world.condition = CALM;
}

/** Circuits are per repository, and one that was open lets a single request through first. */
const oneOfEachRepository = ({images}: World): [registry: string, image: Artifact][] =>
  [...images].flatMap(([registry, artifacts]) =>
    artifacts.filter(({tag}) => tag === 'v0').map((image): [string, Artifact] => [registry, image]),
  );

/** Starts the server again. What its process printed is part of the violation when it does not start. */
export async function restart(world: World): Promise<void> {
  try {
    await world.server.start();
    world.tally.count('starts');
  } catch (error) {
    world.tally.violate(
      'ends of the process',
      `it does not start: ${error instanceof Error ? error.message : error}`,
    );
    throw error;
  }
  world.condition = {...world.condition, dying: false};
}

/** Reports a process that ended although nobody ended it, and starts the next one. */
export async function expectRunning(world: World): Promise<void> {
  if (world.server.isRunning() || world.condition.dying) return;
  world.tally.violate(
    'ends of the process',
    `the server ended by itself: ${world.server.output().slice(-2000)}`,
  );
  await restart(world);
}
