import test, {type ExecutionContext} from 'ava';
import {createManualClock} from '../../support/clock.ts';
import {imageManifest, plainManifest} from '../../support/content.ts';
import {storeImage} from '../../support/copies.ts';
import {type WiredOptions, wireInProcess} from '../../support/wired.ts';

const TASK = {signal: new AbortController().signal, progress: () => {}};
const START = Date.UTC(2030, 0, 1);
const SINCE = '2030-01-01T00:00:00.000Z';

/** A mirror, `docker.io`, and what is stored in it. */
const mirror = (t: ExecutionContext, config: WiredOptions<never>['config'] = {}) =>
  wireInProcess(t, {
    registries: [{url: 'http://127.0.0.1:9'}],
    config: config ?? {},
    clock: createManualClock(START),
  });

test('an image is pinned by any of its names, here or not, and listed by the registry’s own name', async (t) => {
  const {maintenance, storage} = await mirror(t);
  const image = plainManifest();
  await storeImage(storage, {name: 'library/app', manifest: image, tags: ['1']});
  const {pins} = maintenance;

  t.deepEqual(
    await pins.add({images: ['app:1', 'docker.io/library/app:1', `app@${image.digest}`, 'team/x']}),
    {
      pins: [
        {image: 'docker.io/library/app:1', isHere: true, wasPinned: false},
        {image: `docker.io/library/app@${image.digest}`, isHere: true, wasPinned: false},
        {image: 'docker.io/team/x:latest', isHere: false, wasPinned: false},
      ],
    },
  );
  t.deepEqual(await pins.list(TASK), {
    images: [
      {image: 'docker.io/library/app:1', since: SINCE, isHere: true},
      {image: `docker.io/library/app@${image.digest}`, since: SINCE, isHere: true},
      {image: 'docker.io/team/x:latest', since: SINCE, isHere: false},
    ],
    patterns: [],
  });
  const again = await pins.add({images: ['library/app:1']});
  t.deepEqual(again.pins, [{image: 'docker.io/library/app:1', isHere: true, wasPinned: true}]);
});

test('of several names none is pinned when one is not valid', async (t) => {
  const {maintenance} = await mirror(t);
  await t.throwsAsync(() => maintenance.pins.add({images: ['app:1', 'ghcr.io/org/app:1']}), {
    message: /registry "ghcr.io" is not configured/,
  });
  t.deepEqual((await maintenance.pins.list(TASK)).images, []);
});

test('a pin ends by its name; where the configuration pins the image as well, it says so', async (t) => {
  const {maintenance} = await mirror(t, {pins: ['docker.io/library/*:1']});
  await maintenance.pins.add({images: ['app:1', 'app:2']});
  const {pins} = await maintenance.pins.remove({images: ['app:1', 'app:2', 'app:3']});
  t.deepEqual(pins, [
    {image: 'docker.io/library/app:1', wasPinned: true, configured: ['docker.io/library/*:1']},
    {image: 'docker.io/library/app:2', wasPinned: true, configured: []},
    {image: 'docker.io/library/app:3', wasPinned: false, configured: []},
  ]);
  t.deepEqual((await maintenance.pins.list(TASK)).images, []);
});

test('of each pattern in the configuration the list counts the images that are here', async (t) => {
  const {maintenance, storage} = await mirror(t, {pins: ['docker.io/library/*', 'docker.io/team/**:v?']});
  for (const tag of ['v1', 'v2', 'other'])
    await storeImage(storage, {name: 'team/app', manifest: imageManifest(), tags: [tag]});
  const {patterns} = await maintenance.pins.list(TASK);
  t.deepEqual(patterns, [
    {pattern: 'docker.io/library/*', images: 0},
    {pattern: 'docker.io/team/**:v?', images: 2},
  ]);
});
