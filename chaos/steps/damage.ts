import {open, rm, stat, truncate} from 'node:fs/promises';
import type {Artifact} from '../catalog.ts';
import {contentsOf, type Pushed} from '../model.ts';
import type {Random} from '../random.ts';
import {checkPush, pullImage, push} from '../requests.ts';
import {HOSTED, traffic} from '../traffic.ts';
import type {World} from '../world.ts';
import type {Step} from './step.ts';

const FILES = 6;

type Damage = 'deleted' | 'truncated' | 'flipped';

async function damageFile(path: string, how: Damage, random: Random): Promise<void> {
  if (how === 'deleted') return rm(path);
  const {size} = await stat(path);
  if (how === 'truncated') return truncate(path, random.integer(0, size - 1));
  const file = await open(path, 'r+');
  try {
    const at = random.integer(0, size - 1);
    const {buffer} = await file.read(Buffer.alloc(1), 0, 1, at);
    buffer[0] = (buffer[0] ?? 0) ^ (1 << random.integer(0, 7));
    await file.write(buffer, 0, 1, at);
  } finally {
    await file.close();
  }
}

/** Images of an upstream whose blobs are all here, with one of these each. */
function storedImages(
  {images, stored}: World,
  random: Random,
): {registry: string; image: Artifact; digest: string}[] {
  const found: {registry: string; image: Artifact; digest: string}[] = [];
  const all = [...images].flatMap(([registry, artifacts]) => artifacts.map((image) => ({registry, image})));
  for (let tries = 0; tries < 60 && found.length < FILES; tries++) {
    const {registry, image} = random.pick(all);
    const {digest} = random.pick(image.blobs);
    if (stored.hasBlob(digest) && !found.some((each) => each.digest === digest))
      found.push({registry, image, digest});
  }
  return found;
}

/** A read that meets a missing or short copy fetches it again: the client notices nothing. */
async function loseCopies(world: World, random: Random): Promise<void> {
  await traffic(world, random.fork('before'), 40);
  const chosen = storedImages(world, random);
  for (const {digest} of chosen) {
    await damageFile(world.stored.pathOf(digest), random.pick(['deleted', 'truncated']), random).catch(
      ifEvicted,
    );
  }
  for (const {registry, image} of chosen) await pullImage(world, registry, image);
}

/** Eviction may remove a file before it is damaged. */
function ifEvicted(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

/** Flipped bits keep the size: `verify` finds them, beside the running server, and the next pull brings the blob again. */
async function flipCopies(world: World, random: Random): Promise<void> {
  await traffic(world, random.fork('before'), 40);
  const chosen = storedImages(world, random);
  for (const {digest} of chosen) {
    await damageFile(world.stored.pathOf(digest), 'flipped', random).catch(ifEvicted);
  }
  const {bad} = await verify(world);
  for (const digest of bad) {
    if (!chosen.some((each) => each.digest === digest))
      world.tally.violate('damage that was not injected', `verify finds ${digest} bad`);
  }
  for (const {registry, image, digest} of chosen) {
    if (world.stored.hasBlob(digest) && !bad.includes(digest))
      world.tally.violate('wrong bytes', `verify does not find the flipped bit in ${digest}`);
    await pullImage(world, registry, image);
  }
}

/** What was pushed is the only copy: it is reported, never served damaged, and right again after a push. */
async function damagePushed(world: World, random: Random): Promise<void> {
  const pushes = world.model.pushes.filter(
    ({registry, artifact}) => registry === HOSTED && artifact.subject === undefined,
  );
  if (pushes.length === 0) return;
  const pushed: Pushed = random.pick(pushes);
  const {artifact} = pushed;
  const repository = world.model.repository(HOSTED, artifact.repository);
  const {digest} = random.pick(artifact.blobs);
  repository.unsure.add(digest);
  await damageFile(world.stored.pathOf(digest), random.pick(['deleted', 'truncated', 'flipped']), random);
  const {bad} = await verify(world);
  if (!bad.includes(digest))
    world.tally.violate('wrong bytes', `verify does not find ${digest}, which is damaged`);
  await pullImage(world, HOSTED, artifact);
  const isAccepted = await push(
    world,
    {registry: HOSTED, artifact: {...artifact, tag: `${artifact.tag}-again`}},
    random,
  );
  if (!isAccepted)
    world.tally.violate('lost pushes', `${repository.name}: a damaged blob cannot be pushed again`);
  for (const each of contentsOf(artifact)) repository.unsure.delete(each.digest);
  await checkPush(world, pushed);
}

/** Runs `backref verify` beside the server. @returns the digests that it found bad, the first hundred of them. */
export async function verify(world: World): Promise<{bad: string[]; output: string}> {
  const {output} = await world.server.command('verify', '--json');
  const bad = [...output.matchAll(/"digest":"(sha\d+:[a-f0-9]+)"/g)].map(([, digest = '']) => digest);
  if (!/"result"/.test(output))
    world.tally.violate('answers that no failure explains', `verify: ${output.slice(-500)}`);
  return {bad: [...new Set(bad)], output};
}

export const DAMAGE_STEPS: readonly Step[] = [
  {name: 'copies are deleted and truncated', fault: 'deleted or truncated files', weight: 4, run: loseCopies},
  {name: 'bits of copies flip', fault: 'flipped bits', weight: 3, run: flipCopies},
  {name: 'a pushed blob is damaged', fault: 'damaged pushed files', weight: 3, run: damagePushed},
];
