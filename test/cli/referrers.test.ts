import test, {type ExecutionContext} from 'ava';
import {attach} from '../../src/index.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {call} from '../support/command.ts';
import {contentOf, imageManifest, type ManifestContent, manifestAnswer} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createLayout} from '../support/layout.ts';
import {startLegacy} from '../support/legacy.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const plainHttp = {plainHttp: true};
const sbom = {mediaType: 'application/spdx+json', data: Buffer.from('{}\n'), artifactType: 'a/sbom'};
const signature = {mediaType: 'application/x', data: Buffer.from('s'), artifactType: 'a/signature'};

async function run(t: ExecutionContext, ...args: string[]) {
  return call(['referrers', ...args], {HOME: await createFolder(t)});
}

function platformIndex(manifests: Record<string, ManifestContent>): ManifestContent {
  const entries = Object.entries(manifests).map(([platform, {mediaType, digest, bytes}]) => {
    const [os, architecture, variant] = platform.split('/');
    return {
      mediaType,
      digest,
      size: bytes.length,
      platform: {os, architecture, ...(variant ? {variant} : {})},
    };
  });
  const body = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries};
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_INDEX};
}

/** A registry with an index of two platforms, an SBOM with a signature on the index, an SBOM on one platform. */
async function startAttached(t: ExecutionContext, options: {referrers?: boolean} = {}) {
  const platforms = {'linux/amd64': imageManifest(), 'linux/arm64/v8': imageManifest()};
  const index = platformIndex(platforms);
  const legacy = await startLegacy(t, index, options);
  for (const manifest of Object.values(platforms)) await legacy.put(manifest.digest, manifest);
  const own = await attach(legacy.target, '1', sbom, plainHttp);
  const signed = await attach(legacy.target, own, signature, plainHttp);
  const child = await attach(legacy.target, platforms['linux/arm64/v8'].digest, sbom, plainHttp);
  return {legacy, reference: `${legacy.host}/team/app:1`, index, platforms, own, signed, child};
}

for (const options of [{referrers: false}, {referrers: true}]) {
  const where = options.referrers ? 'with the Referrers API' : 'without the Referrers API';
  test(`the tree shows referrers of referrers, from a registry ${where}`, async (t) => {
    const {legacy, reference, index, own, signed} = await startAttached(t, options);
    const {code, stdout, stderr} = await run(t, reference, '--plain-http');
    t.is(stderr, '');
    t.is(code, 0);
    const [heading, first, second, ...rest] = stdout.split('\n');
    t.is(heading, `${legacy.host}/team/app@${index.digest}`);
    t.regex(first ?? '', new RegExp(`^└── a/sbom           +\\d+ B  ${own}$`));
    t.regex(second ?? '', new RegExp(`^    └── a/signature  +\\d+ B  ${signed}$`));
    t.deepEqual(rest, ['']);
  });
}

test("an index's referrers and those of its platforms have headings of their own", async (t) => {
  const {reference, index, platforms, own, child} = await startAttached(t);
  const {code, stdout} = await run(t, reference, '--plain-http', '--all-platforms', '--format', 'json');
  t.is(code, 0);
  const {subjects} = JSON.parse(stdout);
  t.deepEqual(
    subjects.map((subject: Record<string, unknown>) => [subject['platform'], subject['digest']]),
    [
      [undefined, index.digest],
      ['linux/amd64', platforms['linux/amd64'].digest],
      ['linux/arm64/v8', platforms['linux/arm64/v8'].digest],
    ],
  );
  const digests = subjects.map(({referrers}: {referrers: {digest: string}[]}) =>
    referrers.map(({digest}) => digest),
  );
  t.deepEqual(digests, [[own], [], [child]]);
});

test('one platform is shown alone, with or without its default variant', async (t) => {
  const {reference, platforms, child} = await startAttached(t);
  for (const platform of ['linux/arm64', 'linux/arm64/v8']) {
    const {stdout} = await run(t, reference, '--plain-http', '--platform', platform);
    const [heading, line, ...rest] = stdout.split('\n');
    t.is(heading, `linux/arm64/v8  ${platforms['linux/arm64/v8'].digest}`);
    t.true(line?.includes(child));
    t.deepEqual(rest, ['']);
  }
});

test('a platform that the index lacks is an error that lists those it has', async (t) => {
  const {reference, own} = await startAttached(t);
  const {code, stdout, stderr} = await run(t, reference, '--plain-http', '--platform', 'linux/s390x');
  t.is(code, 1);
  t.is(stdout, '');
  t.regex(stderr, /no manifest for linux\/s390x; it has manifests for linux\/amd64, linux\/arm64\/v8/);
  const image = reference.replace(/:1$/, `@${own}`);
  t.regex((await run(t, image, '--plain-http', '--all-platforms')).stderr, /is not an image index/);
});

test('the filter selects direct referrers of any of its types, with everything that refers to them', async (t) => {
  const {reference, own, signed} = await startAttached(t);
  const args = [reference, '--plain-http', '--format', 'json'];
  const only = await run(t, ...args, '--artifact-type', 'a/none', '--artifact-type', 'a/sbom');
  t.like(JSON.parse(only.stdout).subjects[0].referrers, [
    {digest: own, artifactType: 'a/sbom', referrers: [{digest: signed, referrers: []}]},
  ]);
  const none = await run(t, ...args, '--artifact-type', 'a/signature');
  t.deepEqual(JSON.parse(none.stdout).subjects[0].referrers, []);
});

test('an image layout shows its referrers', async (t) => {
  const image = imageManifest();
  const folder = await createLayout(t, {'1': image});
  const digest = await attach(`oci:${folder}`, '1', sbom);
  const {code, stdout} = await run(t, `oci:${folder}:1`);
  t.is(code, 0);
  t.is(stdout.split('\n')[0], `oci:${folder}@${image.digest}`);
  t.true(stdout.includes(digest));
});

test('a cycle of referrers ends', async (t) => {
  const image = imageManifest();
  const other = `sha256:${'b'.repeat(64)}`;
  const listing = (digest: string) => ({
    headers: {'content-type': OCI_INDEX},
    body: JSON.stringify({manifests: [{mediaType: OCI_MANIFEST, digest, size: 1}]}),
  });
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/team/app/manifests/${image.digest}`,
      answer: {headers: {'content-type': OCI_MANIFEST}, body: image.bytes},
    },
    {request: `GET /v2/team/app/referrers/${image.digest}`, answer: listing(other)},
    {request: `GET /v2/team/app/referrers/${other}`, answer: listing(image.digest)},
  ]);
  const {code, stdout} = await run(t, `${upstream.host}/team/app@${image.digest}`, '--plain-http');
  t.is(code, 0);
  t.is(stdout.split('\n').filter((line) => line.includes('└──')).length, 2);
});

test('a list that cannot be read is an error with exit code 1, never an empty tree', async (t) => {
  const image = imageManifest();
  for (const status of [403, 429, 500]) {
    const upstream = await createScriptedUpstream(t, [
      {
        request: `GET /v2/team/app/manifests/1`,
        answer: {headers: {'content-type': OCI_MANIFEST}, body: image.bytes},
      },
      {
        request: `GET /v2/team/app/referrers/${image.digest}`,
        answer: {status},
        times: status === 500 ? 4 : 1,
      },
    ]);
    const {code, stdout, stderr} = await run(t, `${upstream.host}/team/app:1`, '--plain-http');
    t.is(code, 1);
    t.is(stdout, '');
    t.regex(stderr, new RegExp(`${status}`));
  }
});

test('wrong arguments end with 2', async (t) => {
  const misuses = [
    [],
    ['team/app:1'],
    ['r.test/a:1', '--format', 'xml'],
    ['r.test/a:1', '--platform', 'linux'],
    ['r.test/a:1', '--platform', 'linux/arm64', '--all-platforms'],
  ];
  for (const args of misuses) {
    const {code, stderr} = await run(t, ...args);
    t.is(code, 2, args.join(' '));
    t.not(stderr, '');
  }
});

test('control characters from a registry are not printed', async (t) => {
  const subject = imageManifest();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/app/manifests/${subject.digest}`, answer: manifestAnswer(subject)},
    {request: `GET /v2/app/referrers/${subject.digest}`, answer: {status: 404}},
    {
      request: `GET /v2/app/manifests/${subject.digest.replace(':', '-')}`,
      answer: {
        headers: {'Content-Type': OCI_INDEX},
        body: JSON.stringify({schemaVersion: 2, manifests: [{digest: '\u001b[2J\u009b2J\u202e'}]}),
      },
    },
  ]);
  const {code, stderr} = await run(t, `${new URL(upstream.url).host}/app@${subject.digest}`, '--plain-http');
  t.is(code, 1);
  t.regex(stderr, /names a referrer that cannot be read: \?\[2J\?2J\? is not a digest/);
});
