import {statSync} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {content, descriptor, noise} from '../../rig/image.ts';
import type {Artifact} from '../catalog.ts';
import type {Random} from '../random.ts';
import {restart} from '../recovery.ts';
import {pullImage} from '../requests.ts';
import type {World} from '../world.ts';
import type {Step} from './step.ts';

const REGISTRY = 'beta.test';
const SIZE = 1_500_000;
/** Bytes per second. */
const RATE = 1_000_000;
/** For the first bytes to be stored. */
const MAX_WAIT_MS = 5000;

function buildLarge(seed: string): Artifact {
  const layer = content('application/vnd.oci.image.layer.v1.tar+gzip', noise(seed, SIZE));
  const config = content('application/vnd.oci.image.config.v1+json', Buffer.from('{"os":"linux"}'));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const value = {schemaVersion: 2, mediaType, config: descriptor(config), layers: [descriptor(layer)]};
  const manifest = content(mediaType, Buffer.from(JSON.stringify(value)));
  const blobs = [config, layer];
  return {repository: `large/${seed}`, tag: 'v1', manifest, children: [], blobs, subject: undefined};
}

/** Kills the process in the middle of a download: the next one asks only for the rest. */
async function killAmidDownload(world: World, random: Random): Promise<void> {
  const {server, stored, tally, model} = world;
  const upstream = world.upstreams.get(REGISTRY);
  const image = buildLarge(`n${random.integer(0, 2 ** 48)}`);
  const digest = image.blobs[1]?.digest ?? '';
  upstream?.add(image);
  model.addUpstreamArtifact(REGISTRY, image);
  upstream?.throttle(RATE);
  tally.count('attempts to kill a download halfway');
  const pulling = pullImage(world, REGISTRY, image);
  const spool = join(server.folder, 'spool', `${digest.replace(':', '-')}.part`);
  const received = () => statSync(spool, {throwIfNoEntry: false})?.size ?? 0;
  for (let waited = 0; received() === 0 && waited < MAX_WAIT_MS; waited += 20) await delay(20);
  await delay(random.integer(0, 800));
  world.condition = {...world.condition, dying: true};
  await server.kill();
  await pulling;
  upstream?.throttle(undefined);
  const kept = received();
  await restart(world);
  const isHere = stored.hasBlob(digest);
  await pullImage(world, REGISTRY, image);
  const range = upstream?.latestRange(digest);
  if (kept > 0 && !isHere) {
    tally.count('downloads killed halfway');
    // The last byte is asked for again where everything else may be here already.
    if (range === `bytes=${kept}-` || range === `bytes=${kept - 1}-`) tally.count('downloads resumed');
    else
      tally.violate(
        'downloads that start over',
        `${digest} had ${kept} bytes, and was asked for with ${range}`,
      );
  }
  upstream?.forget(image.repository);
  model.forget(REGISTRY, image.repository);
}

export const RESUME_STEPS: readonly Step[] = [
  {name: 'kill -9 amid a large download', fault: 'kill -9', weight: 4, run: killAmidDownload},
];
