import {type Artifact, buildReferrer, buildSmallImage} from './catalog.ts';
import type {Pushed} from './model.ts';
import type {Random} from './random.ts';
import {
  askForForeign,
  checkDeletion,
  checkPush,
  deletePush,
  getRange,
  listReferrers,
  pullImage,
  push,
} from './requests.ts';
import type {World} from './world.ts';

/** Where pushes go: a hosted registry, and one that keeps referrers beside what its upstream has. */
export const HOSTED = 'apps.test';
export const OVERLAY = 'over.test';

const CLIENTS = 6;
const HOSTED_REPOSITORIES = 5;
/** Nothing that was pushed is evicted: when more is kept, pushes are deleted, or pulls would soon have no room. */
const KEPT_PUSHES = 150;

/** One request, or a few that belong together, as a client may send them at any time. */
type Act = (world: World, random: Random) => Promise<unknown>;

const anyImage = ({images}: World, random: Random): {registry: string; image: Artifact} => {
  const [registry, artifacts] = random.pick([...images]);
  return {registry, image: random.pick(artifacts)};
};

/** An image is asked for the more often the earlier it stands in its catalog. */
function popularImage({images}: World, random: Random): {registry: string; image: Artifact} {
  const [registry, artifacts] = random.pick([...images]);
  const rank = Math.floor(artifacts.length ** random.fraction()) - 1;
  return {registry, image: artifacts[rank] ?? random.pick(artifacts)};
}

/**
 * Pulls an image. When all of it is in the cache, before the pull and after it, it must be served whatever the upstream
 * does: that is how availability is counted.
 */
async function pullSome(world: World, random: Random): Promise<void> {
  const {registry, image} = popularImage(world, random);
  const {stored, tally, model} = world;
  const isCached = stored.holds(registry, image);
  const {upstreams} = world.condition;
  const isServed = await pullImage(world, registry, image);
  if (!isCached || upstreams === undefined || world.condition.upstreams === undefined) return;
  if (world.condition.dying || world.condition.disk !== undefined) return;
  if (!isServed && !stored.holds(registry, image)) return void tally.count('evicted during a pull');
  tally.count('warm pulls while an upstream fails');
  if (isServed) tally.count('warm pulls served while an upstream fails');
  else {
    const {name} = model.repository(registry, image.repository);
    tally.violate(
      'unavailable without a reason',
      `${name}:${image.tag} is in the cache and was not served while ${upstreams}`,
    );
  }
}

const listSome: Act = (world, random) => {
  const {registry, image} = popularImage(world, random);
  return listReferrers(world, registry, image);
};

const rangeOfSome: Act = (world, random) => {
  const {registry, image} = popularImage(world, random);
  return getRange(world, registry, image, random);
};

const foreignOfSome: Act = (world, random) => {
  const own = anyImage(world, random);
  const other = anyImage(world, random);
  return askForForeign(world, own.registry, own.image.repository, random.pick(other.image.blobs));
};

const checkSomePush: Act = async (world, random) => {
  if (world.model.pushes.length > 0) await checkPush(world, random.pick(world.model.pushes));
};

/** Different in each act. */
const numberOf = (random: Random): number => random.integer(0, 2 ** 48);

const pushSome: Act = (world, random) => {
  const repository = `team/${random.integer(0, HOSTED_REPOSITORIES - 1)}`;
  const tag = `p${numberOf(random)}`;
  const artifact = buildSmallImage(repository, tag, tag);
  return push(world, {registry: HOSTED, artifact}, random);
};

const pushReferrer: Act = (world, random) => {
  const subjects = world.model.pushes.filter(({artifact}) => artifact.subject === undefined);
  if (subjects.length === 0 || random.chance(0.4)) return pushOverlay(world, random);
  const {registry, artifact}: Pushed = random.pick(subjects);
  return push(world, {registry, artifact: buildReferrer(artifact, `sbom-${numberOf(random)}`)}, random);
};

/** Attaches to an image of the upstream. */
const pushOverlay: Act = (world, random) => {
  const image = random.pick(world.images.get(OVERLAY) ?? []);
  return push(
    world,
    {registry: OVERLAY, artifact: buildReferrer(image, `attached-${numberOf(random)}`)},
    random,
  );
};

const deleteSome: Act = async (world, random) => {
  const {pushes} = world.model;
  if (pushes.length > KEPT_PUSHES) await deletePush(world, random.pick(pushes));
};

const checkSomeDeletion: Act = async (world, random) => {
  const {deletions} = world.model;
  if (deletions.length > 0) await checkDeletion(world, random.pick(deletions));
};

const MIX: readonly [weight: number, act: Act][] = [
  [10, pullSome],
  [3, listSome],
  [2, rangeOfSome],
  [2, foreignOfSome],
  [4, checkSomePush],
  [4, pushSome],
  [4, pushReferrer],
  [8, deleteSome],
  [2, checkSomeDeletion],
];
const BAG = MIX.flatMap(([weight, act]) => Array.from({length: weight}, () => act));

/** Some clients act, each on its own, until `acts` have begun or the signal is aborted. */
export async function traffic(
  world: World,
  random: Random,
  acts: number,
  signal?: AbortSignal,
): Promise<void> {
  let begun = 0;
  const client = async () => {
    while (begun < acts && signal?.aborted !== true) {
      begun += 1;
      const own = random.fork(`act ${begun}`);
      await own.pick(BAG)(world, own);
    }
  };
  await Promise.all(Array.from({length: CLIENTS}, client));
}
