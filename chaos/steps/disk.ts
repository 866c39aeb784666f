import type {DiskFault} from '../disk.ts';
import type {Random} from '../random.ts';
import {recover} from '../recovery.ts';
import {traffic} from '../traffic.ts';
import type {Condition, World} from '../world.ts';
import type {Step} from './step.ts';

const ACTS = 60;
/** What is left free of a disk that is nearly full: a few blobs fit. */
const SCRAP = 300_000;

/** Lets clients work while the disk is full or fails. */
async function whileDisk(
  world: World,
  random: Random,
  condition: Partial<Condition>,
  {begin, end}: {begin(): Promise<void>; end(): Promise<void>},
): Promise<void> {
  await traffic(world, random.fork('before'), ACTS / 2);
  world.condition = {...world.condition, ...condition};
  await begin();
  await traffic(world, random.fork('while'), ACTS);
  await end();
  await recover(world);
  await traffic(world, random.fork('after'), ACTS / 2);
}

const full = (name: string, spared: (random: Random) => number): Step => ({
  name,
  fault: 'full disk (ENOSPC)',
  weight: 3,
  needs: 'small disk',
  run: (world, random) =>
    // Pulls have no excuse: a full disk never fails one.
    whileDisk(
      world,
      random,
      {pushes: 'the disk is full'},
      {begin: () => world.disk.fill(spared(random)), end: () => world.disk.empty()},
    ),
});

const failing = (name: string, fault: string, condition: Partial<Condition>, faults: DiskFault[]): Step => ({
  name,
  fault,
  weight: 2,
  needs: 'failing disk',
  run: (world, random) =>
    whileDisk(world, random, condition, {
      begin: () => world.disk.fail(random.pick(faults)),
      end: () => world.disk.fail(undefined),
    }),
});

export const DISK_STEPS: readonly Step[] = [
  full('the disk is full', () => 0),
  full('the disk fills up', (random) => random.integer(4096, SCRAP)),
  failing('the quota is used up', 'quota (EDQUOT)', {pushes: 'the quota is used up'}, [
    {writes: 'EDQUOT'},
    {writes: 'EDQUOT', only: 'blobs'},
    {writes: 'EDQUOT', only: 'metadata'},
  ]),
  failing('the disk fails to write', 'EIO', {disk: 'the disk fails to write'}, [
    {writes: 'EIO'},
    {writes: 'EIO', only: 'blobs', spared: 3},
    {writes: 'EIO', only: 'metadata', spared: 3},
  ]),
  failing('the disk fails to read', 'EIO', {disk: 'the disk fails to read'}, [
    {reads: 'EIO'},
    {reads: 'EIO', only: 'blobs', spared: 2},
    {reads: 'EIO', only: 'metadata', spared: 2},
  ]),
  {
    name: 'the blobs are not mounted',
    fault: 'unmounted folder',
    weight: 3,
    needs: 'small disk',
    run: (world, random) =>
      whileDisk(
        world,
        random,
        {disk: 'the blobs are not mounted'},
        {begin: () => world.disk.hideBlobs(), end: () => world.disk.showBlobs()},
      ),
  },
];
