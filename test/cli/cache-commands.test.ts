import test, {type ExecutionContext} from 'ava';
import {drawTable} from '../../src/cli/table.ts';
import {systemClock} from '../../src/clock.ts';
import {loadConfig} from '../../src/config/load.ts';
import {openStorage} from '../../src/storage/open.ts';
import {call} from '../support/command.ts';
import {configured, resultIn, serveFile} from '../support/configured.ts';
import {imageManifest, randomBlob} from '../support/content.ts';
import {storeImage} from '../support/copies.ts';

const base = randomBlob(40_000);
const layer = randomBlob(2_000);
const app = imageManifest([base, layer]);
const other = imageManifest([base]);
const pushed = imageManifest([]);
const DAY_MS = 24 * 60 * 60_000;

/** A mirror with two images, and a configuration file of it; no server runs. */
async function setUp(t: ExecutionContext) {
  const {file} = await configured(
    t,
    `cache: {minFree: 0, maxSize: 100MB}
pins: ['docker.io/library/other:*']
registries: {docker.io: {default: true, library: true, push: local, upstream: {url: http://127.0.0.1:9, insecure: true}}}`,
  );
  const {storage: place} = await loadConfig({file, env: {}});
  const storage = await openStorage(place, {owner: 'test', clock: systemClock});
  const at = Date.now() - 3 * DAY_MS;
  await storeImage(storage, {
    name: 'library/app',
    manifest: app,
    tags: ['1'],
    blobs: [base, layer],
    at,
    uses: 2,
  });
  await storeImage(storage, {name: 'library/other', manifest: other, tags: ['2'], at});
  await storeImage(storage, {name: 'team/pushed', manifest: pushed, tags: ['3'], origin: 'local', at});
  await storage.close();
  const backref = async (name: string, ...args: string[]) => {
    const {code, stdout, stderr} = await call([name, ...args, '--config', file]);
    // Times that depend on how fast this machine is.
    return {code, stdout: stdout.replace(/ (?:now|\d+ s ago) +/g, ' now '), stderr};
  };
  return {backref, serve: () => serveFile(t, file)};
}

test('pin and unpin say what has become of each image, and the list what is pinned', async (t) => {
  const {backref} = await setUp(t);
  const pin = await backref('pin', 'app:1', 'team/x');
  t.is(
    pin.stdout,
    `docker.io/library/app:1 is pinned.
docker.io/team/x:latest is pinned. It is not here: its next pull brings it.
`,
  );
  t.is(pin.code, 0);
  t.is(
    (await backref('pin')).stdout,
    `PINNED                     SINCE          HERE
docker.io/library/app:1    now yes
docker.io/team/x:latest    now no
docker.io/library/other:*  configuration  1 image
`,
  );
  const unpin = await backref('unpin', 'app:1', 'other:2');
  t.is(
    unpin.stdout,
    `docker.io/library/app:1 is no longer pinned.
docker.io/library/other:2 was not pinned by "backref pin", but the configuration pins it: remove docker.io/library/other:* from "pins" there.
`,
  );
  t.is(unpin.code, 1);
});

test('du draws a table with the largest first, and says what the disk is used for', async (t) => {
  const {backref} = await setUp(t);
  const {code, stdout} = await backref('du');
  t.is(code, 0);
  const [table = '', summary = ''] = stdout.split('\n\n');
  t.is(
    table,
    `IMAGE                      UNIQUE  SHARED  USES  LAST USE  EVICTION
docker.io/library/app:1    2.0 kB   40 kB     2  2 d ago   1
docker.io/library/other:2     0 B   40 kB     0  3 d ago   pinned
docker.io/team/pushed:3       0 B     0 B     0  3 d ago   pushed here`,
  );
  t.regex(
    summary,
    /^3 images\. On the disk: blobs 45 kB, unfinished transfers 0 B, quarantine 0 B, database \S+ kB\.\nIn use: \S+ kB; the limit is 100 MB, and eviction begins above 95 MB\.\n$/,
  );
  const byRepository = await backref('du', '--by', 'repository', '--top', '1');
  t.deepEqual(byRepository.stdout.split('\n').slice(0, 4), [
    'REPOSITORY             IMAGES  UNIQUE  SHARED  USES  LAST USE  EVICTION',
    'docker.io/library/app       1  2.0 kB   40 kB     2  2 d ago   1',
    '',
    '2 more repositories: 0 B unique.',
  ]);
});

test('rm says what it removed, why the rest stays, and what is not here', async (t) => {
  const {backref} = await setUp(t);
  const lines = `docker.io/library/app:1: 2.0 kB
docker.io/library/other:2 stays: it is pinned. Run "backref unpin", or remove it from "pins" in the configuration.
docker.io/team/pushed:3 stays: it was pushed here, or is part of what was. Delete it through the registry: DELETE its manifest.
`;
  const dry = await backref('rm', '--dry-run', 'docker.io/**');
  t.is(dry.stdout, `${lines}Would remove 1 image and free 2.0 kB.\n`);
  t.is(dry.code, 0);
  t.is((await backref('rm', 'docker.io/**')).stdout, `${lines}Removed 1 image and freed 2.0 kB.\n`);
  const again = await backref('rm', 'app:1');
  t.is(again.stdout, 'No image here matches app:1.\nRemoved 0 images and freed 0 B.\n');
  t.is(again.code, 1);
});

test('beside a running server du and rm do the same, and report to machines in JSON', async (t) => {
  const {backref, serve} = await setUp(t);
  await serve();
  const du = resultIn((await backref('du', '--json', '--top', '1')).stdout);
  t.like(du.lines[0], {tags: ['1'], uniqueBytes: 2_000, place: 1});
  t.deepEqual(du.more, {lines: 2, uniqueBytes: 0});
  const rm = resultIn((await backref('rm', '--json', 'app:1')).stdout);
  t.like(rm, {removed: 1, spared: 0, bytes: 2_000, unmatched: []});
  t.is(resultIn((await backref('du', '--json')).stdout).totals.images, 2);
  t.is((await backref('pin', 'team/pushed:3')).stdout, 'docker.io/team/pushed:3 is pinned.\n');
});

test('a table that is wider than the screen shortens names at their beginning', (t) => {
  const columns = [
    {title: 'IMAGE', align: 'start'},
    {title: 'BYTES', align: 'end'},
  ] as const;
  t.deepEqual(drawTable(columns, [['docker.io/library/alpine:3.22', '7']], 28), [
    'IMAGE                  BYTES',
    '…/library/alpine:3.22      7',
  ]);
});
