import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {systemClock} from '../../src/clock.ts';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {openStorage} from '../../src/storage/open.ts';
import {call} from '../support/command.ts';
import {imageManifest, randomBlob} from '../support/content.ts';
import {storeImage} from '../support/copies.ts';
import {createFolder} from '../support/folder.ts';

const base = randomBlob(40_000);
const layer = randomBlob(2_000);
const app = imageManifest([base, layer]);
const other = imageManifest([base]);
const pushed = imageManifest([]);
const DAY_MS = 24 * 60 * 60_000;

/** A mirror with two images, and a configuration file of it; no server runs. */
async function setUp(t: ExecutionContext) {
  const cwd = await createFolder(t);
  const file = join(cwd, 'f.yaml');
  await writeFile(
    file,
    `listen: {host: 127.0.0.1, port: 0}
storage: {path: ${join(cwd, 'data')}}
cache: {minFree: 0}
pins: ['docker.io/library/other:*']
registries: {docker.io: {default: true, library: true, push: local, upstream: {url: http://127.0.0.1:9, insecure: true}}}
`,
  );
  const config = await loadConfig({file, env: {}});
  const storage = await openStorage(config.storage, {owner: 'test', clock: systemClock});
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
  const serve = async () => {
    const server = createServer(config, {env: {}});
    t.teardown(() => server.close());
    await server.listen();
  };
  return {backref, serve};
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
