import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {imagesIn, imagesOrFault} from '../../src/cli/image-list.ts';
import {createFolder} from '../support/folder.ts';

const DIGEST = `sha256:${'b'.repeat(64)}`;

test('a list has one image a line; comments and empty lines do not count', (t) => {
  t.deepEqual(imagesIn('alpine:3\n\n# bases\n  ghcr.io/org/app:1  # the app\r\n'), [
    'alpine:3',
    'ghcr.io/org/app:1',
  ]);
});

test("of pods every container's image counts, by the digest that it runs where the status names one", (t) => {
  const pod = {
    kind: 'Pod',
    spec: {
      initContainers: [{name: 'init', image: 'busybox'}],
      containers: [
        {name: 'app', image: 'ghcr.io/org/app:1'},
        {name: 'new', image: 'alpine:3'},
        {name: 'old', image: 'nginx:1'},
      ],
      ephemeralContainers: [{name: 'debug', image: 'debug:1'}],
    },
    status: {
      containerStatuses: [
        {name: 'old', imageID: `docker-pullable://nginx@${DIGEST}`},
        {name: 'app', imageID: `ghcr.io/org/app@${DIGEST}`},
        {name: 'new', imageID: ''},
      ],
      initContainerStatuses: [{name: 'init', imageID: DIGEST}],
    },
  };
  const images = [`ghcr.io/org/app@${DIGEST}`, 'alpine:3', `nginx@${DIGEST}`, 'busybox', 'debug:1'];
  t.deepEqual(imagesIn(JSON.stringify({kind: 'List', items: [pod]})), images);
  t.deepEqual(imagesIn(JSON.stringify(pod)), images);
  t.throws(() => imagesIn('{"kind": "List", "items": []}'), {message: /^the list of pods is empty/});
});

test('images come from arguments, from a file and from stdin, each once', async (t) => {
  const file = join(await createFolder(t), 'list');
  await writeFile(file, 'a:1\nb:1\n');
  async function* stdin() {
    yield Buffer.from('c:1\na:');
    yield '1\n';
  }
  const from = (names: string[], place?: string) =>
    imagesOrFault(names, {file: place, platforms: []}, {stdin: stdin()});
  t.deepEqual(await from(['z:1', 'a:1'], file), ['z:1', 'a:1', 'b:1']);
  t.deepEqual(await from(['-']), ['c:1', 'a:1']);
  t.deepEqual(await from([], '-'), ['c:1', 'a:1']);
  t.regex(String(await from([])), /no image is named/);
  t.regex(String(await from([], join(file, 'none'))), /the list cannot be read/);
});

for (const [what, text] of [
  ['JSON that is cut off', '{"items": ['],
  ['JSON that is not pods', '{"images": ["a:1"]}'],
  ['a list of names as JSON', '["a:1"]'],
] as const) {
  test(`${what} is refused`, async (t) => {
    const stdin = (async function* () {
      yield text;
    })();
    const found = await imagesOrFault(['-'], {file: undefined, platforms: []}, {stdin});
    t.regex(String(found), /^the list is/);
  });
}

test('a platform that is not one is refused', async (t) => {
  for (const platform of ['linux', 'linux/', 'a/b/c/d', 'linux amd64']) {
    t.regex(
      String(await imagesOrFault(['a'], {file: undefined, platforms: [platform]}, {})),
      /is not a platform/,
    );
  }
  t.deepEqual(await imagesOrFault(['a'], {file: undefined, platforms: ['linux/arm/v7']}, {}), ['a']);
});
