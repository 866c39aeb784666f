import test from 'ava';
import {platformsOf} from '../../src/artifact/platforms.ts';

const digestOf = (number: number): string => `sha256:${number.toString(16).padStart(64, '0')}`;
const entry = (number: number, architecture: string, variant?: string) => ({
  mediaType: 'x/y',
  digest: digestOf(number),
  size: 1,
  platform: {os: 'linux', architecture, variant},
});
const indexOf = (manifests: unknown): Buffer => Buffer.from(JSON.stringify({manifests}));

test('an index that repeats a manifest names it once for each platform', (t) => {
  const entries = [entry(1, 'amd64'), entry(2, 'arm64'), entry(2, 'arm64', 'v8'), entry(1, 'amd64')];
  t.deepEqual(
    platformsOf(indexOf(entries)).map(({digest, platform}) => [digest, platform]),
    [
      [digestOf(1), 'linux/amd64'],
      [digestOf(2), 'linux/arm64'],
      [digestOf(2), 'linux/arm64/v8'],
    ],
  );
});

test('an index of more than a thousand manifests is refused, not followed', (t) => {
  const entries = Array.from({length: 1001}, (_, index) => entry(index, 'amd64'));
  t.throws(() => platformsOf(indexOf(entries)), {name: 'ArtifactError', message: /names 1001 manifests/});
  t.is(platformsOf(indexOf(entries.slice(1))).length, 1000);
});

test('what is not an index, or not JSON, has no platforms', (t) => {
  for (const text of ['{}', 'null', '<html>', '{"manifests": "none"}', '{"manifests": [null, 1]}'])
    t.deepEqual(platformsOf(Buffer.from(text)), []);
});
