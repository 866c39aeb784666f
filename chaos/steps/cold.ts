import {type Artifact, buildImage} from '../catalog.ts';
import type {Random} from '../random.ts';
import {recover} from '../recovery.ts';
import {pullImage} from '../requests.ts';
import {BAD_ANSWERS} from '../spoiling.ts';
import type {World} from '../world.ts';
import type {Step} from './step.ts';

const IMAGES = 24;
const CLIENTS = 3;
/** The share of answers that the target for cold images is about. */
const SHARE = 0.3;

/** Pulls images that were never pulled before, once each, while the upstream spoils its answers. */
async function pullCold(world: World, random: Random): Promise<void> {
  const {tally, model} = world;
  const [registry, upstream] = random.pick([...world.upstreams]);
  const name = `cold/${random.integer(0, 2 ** 48)}`;
  const images = Array.from({length: IMAGES}, (_, index) => buildImage(`${name}/${index}`, 'v1', 1));
  upstream.add(...images);
  for (const image of images) model.addUpstreamArtifact(registry, image);
  const condition = {upstreams: 'the upstream spoils 30 % of its answers', isMangled: true};
  world.condition = {...world.condition, ...condition};
  upstream.spoil({share: SHARE, kinds: BAD_ANSWERS, seed: String(random.fraction())});
  const waiting = [...images];
  const client = async () => {
    for (let image = waiting.pop(); image; image = waiting.pop()) {
      tally.count('cold pulls');
      if (await pullImage(world, registry, image)) tally.count('cold pulls served');
    }
  };
  await Promise.all(Array.from({length: CLIENTS}, client));
  upstream.spoil(undefined);
  await recover(world);
  for (const image of images) forget(world, registry, image);
}

/** Their bytes are not needed any more. */
function forget({upstreams, model}: World, registry: string, {repository}: Artifact): void {
  upstreams.get(registry)?.forget(repository);
  model.forget(registry, repository);
}

export const COLD_STEPS: readonly Step[] = [
  {name: 'cold images behind a bad upstream', fault: 'bad answers of upstreams', weight: 5, run: pullCold},
];
