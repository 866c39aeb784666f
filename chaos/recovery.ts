import {setTimeout as delay} from 'node:timers/promises';
import type {Artifact} from './catalog.ts';
import {pullImage} from './requests.ts';
import {CALM, type World} from './world.ts';

/** A fault ends, but its effects last: circuits are open for a second, and a rate limit as long as it says. */
const RECOVERY_MS = 20_000;

/**
 * Waits until every repository of every upstream answers again, and an image of it can be pulled. It counts as a
 * violation when that takes too long.
 */
export async function recover(world: World): Promise<void> {
  const {condition} = world;
  if (!world.server.isRunning()) await restart(world);
  world.condition = {...condition, dying: false, upstreams: condition.upstreams ?? 'an upstream has failed'};
  const deadline = Date.now() + RECOVERY_MS;
  await Promise.all(
    oneOfEachRepository(world).map(async ([registry, image]) => {
      const isBack = async () =>
        (await isAsked(world, registry, image)) && (await pullImage(world, registry, image));
      while (!(await isBack())) {
        if (Date.now() > deadline) return reportLate(world, registry, image);
        await delay(100);
      }
    }),
  );
  world.condition = CALM;
}

function reportLate({tally}: World, registry: string, {repository}: Artifact): void {
  const late = `${registry}/${repository} cannot be pulled from ${RECOVERY_MS / 1000} s after a fault`;
  tally.violate('unavailable without a reason', late);
}

/** Whether the upstream is asked and answers. Circuits are per repository, and cached images do not show their state. */
async function isAsked({ask, server}: World, registry: string, {repository}: Artifact): Promise<boolean> {
  const name = `${registry}/${repository}`;
  const {status} = await ask({
    url: `${server.url}/v2/${name}/manifests/absent-${Math.random().toString(36).slice(2)}`,
  });
  return status === 404;
}

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
