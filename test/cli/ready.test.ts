import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {call, PATIENT} from '../support/command.ts';
import {
  blobAnswer,
  contentOf,
  headAnswer,
  imageManifest,
  manifestAnswer,
  randomBlob,
} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';

const layer = randomBlob(3000);
const config = contentOf(Buffer.from('{}'));
const image = imageManifest([layer]);
const at = '/v2/library/app';
const always = {always: true, optional: true} as const;

const SCRIPT: Expectation[] = [
  ...['1', image.digest].map((reference) => ({
    request: `GET ${at}/manifests/${reference}`,
    answer: manifestAnswer(image),
    ...always,
  })),
  {request: `HEAD ${at}/manifests/1`, answer: headAnswer(image), ...always},
  ...[layer, config].map((blob) => ({
    request: `GET ${at}/blobs/${blob.digest}`,
    answer: blobAnswer(blob),
    ...always,
  })),
  {request: new RegExp(`^GET ${at}/(referrers/|manifests/sha256-)`), answer: {status: 404}, ...always},
];

/** A server over an upstream that has the image `app:1`. */
async function setUp(t: ExecutionContext) {
  const upstream = await createScriptedUpstream(t, SCRIPT);
  const cwd = await createFolder(t);
  const file = join(cwd, 'f.yaml');
  await writeFile(
    file,
    JSON.stringify({
      listen: {host: '127.0.0.1', port: 0},
      storage: {path: join(cwd, 'data')},
      registries: {
        'docker.io': {
          default: true,
          library: true,
          referrers: {prefetch: 'off'},
          upstream: {url: upstream.url, insecure: true, timeouts: PATIENT},
        },
      },
    }),
  );
  const serving = async () => {
    const server = createServer(await loadConfig({file, env: {}}), {env: {}});
    t.teardown(() => server.close());
    return {server, ...(await server.listen())};
  };
  return {upstream, file, config: ['--config', file], serving};
}

const lastLine = (stdout: string) => JSON.parse(stdout.trim().split('\n').at(-1) ?? '');

test('beside a running server, ready says what would pull and what is missing, and exits with 1 for it', async (t) => {
  const {config, serving} = await setUp(t);
  const {url} = await serving();
  await fetch(`${url}/v2/app/manifests/1`).then((answer) => answer.arrayBuffer());
  const {code, stdout} = await call(['ready', 'app:1', 'quay.io/a:1', ...config]);
  t.is(code, 1);
  const digest = contentOf(Buffer.from('{}')).digest;
  t.is(
    stdout,
    `With the upstreams gone, 0 of 2 images would pull, and 0 would verify.
Would not pull:
  app:1: 3 missing, 3.0 kB
    blob ${digest}, 2 B
    blob ${layer.digest}, 3.0 kB
    the list of referrers of ${image.digest}
  quay.io/a:1: registry "quay.io" is not configured here; configured are: docker.io
`,
  );
});

test('without a server, ready opens the store itself, and says in JSON what is missing', async (t) => {
  const {config, serving} = await setUp(t);
  const none = await call(['ready', 'app:1', ...config]);
  t.is(none.code, 1);
  t.regex(none.stderr, /There is no store/);
  const {server} = await serving();
  await server.close();
  const {code, stdout} = await call(['ready', 'app:1', '--json', ...config]);
  t.is(code, 1);
  t.deepEqual(lastLine(stdout), {
    result: {
      images: 1,
      pulls: 0,
      verifies: 0,
      readiness: [
        {
          image: 'app:1',
          pulls: false,
          verifies: false,
          missing: [{kind: 'tag', name: '1', neededTo: 'pull'}],
          lacking: {pull: 1, verify: 0, bytes: 0},
        },
      ],
    },
  });
  t.is((await call(['ready', ...config])).code, 2);
});

test('after warm, ready finds nothing missing; an image that failed is named, and warm exits with 1', async (t) => {
  const {config, upstream} = await setUp(t);
  const {code, stdout} = await call(['warm', 'app:1', 'quay.io/a:1', '--referrers', ...config]);
  t.is(
    stdout,
    `1 of 2 images is here, 3.0 kB.
  quay.io/a:1: registry "quay.io" is not configured here; configured are: docker.io
Run the command again to fetch the rest. Content that is already stored is skipped.
`,
  );
  t.is(code, 1);
  t.is((await call(['warm', 'app:1', ...config])).code, 0);

  await upstream.stop();
  const ready = await call(['ready', 'app:1', '--verify', ...config]);
  t.is(
    ready.stdout,
    'With the upstreams gone, 1 of 1 image would pull, and 1 would verify.\n' +
      'Whether 1 image has tags of cosign is not known here: set referrers.prefetch: all, which asks for them with each pull.\n',
  );
  t.is(ready.code, 0);
});

test('beside a running server, warm has the server fetch, and reports in JSON', async (t) => {
  const {config, serving} = await setUp(t);
  const {url} = await serving();
  const {code, stdout} = await call(['warm', 'app:1', '--json', ...config]);
  t.is(code, 0);
  t.deepEqual(lastLine(stdout), {
    result: {
      images: 1,
      finished: 1,
      failed: 0,
      bytes: 3002,
      warmed: [{image: 'app:1', digest: image.digest, manifests: 1, blobs: 2, bytes: 3002}],
    },
  });
  const got = await fetch(`${url}/v2/app/blobs/${layer.digest}`);
  t.deepEqual(Buffer.from(await got.arrayBuffer()), layer.bytes);
});
