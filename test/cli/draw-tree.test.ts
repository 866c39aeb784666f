import test from 'ava';
import {drawTree, humanAge, humanSize} from '../../src/cli/draw-tree.ts';
import {parseDigest} from '../../src/oci/digest.ts';

const NOW = Date.UTC(2030, 0, 1);
const digestOf = (hex: string) => parseDigest(`sha256:${hex.repeat(64)}`);

test('sizes are shown in decimal units', (t) => {
  const sizes = [0, 999, 1000, 1234, 9960, 12_345, 999_999, 5_500_000, 7e15];
  t.deepEqual(sizes.map(humanSize), [
    '0 B',
    '999 B',
    '1.0 kB',
    '1.2 kB',
    '10.0 kB',
    '12 kB',
    '1000 kB',
    '5.5 MB',
    '7000 TB',
  ]);
});

test('ages are shown in the largest unit that fits', (t) => {
  const ages = [0, 5000, 61_000, 3_600_000, 86_400_000 * 364, 86_400_000 * 800, -5000];
  t.deepEqual(
    ages.map((age) => humanAge(new Date(NOW - age).toISOString(), NOW)),
    ['now', '5 s ago', '1 min ago', '1 h ago', '364 d ago', '2 y ago', 'now'],
  );
  t.is(humanAge(undefined, NOW), '');
  t.is(humanAge('yesterday', NOW), '');
});

test('each subject has its own heading, and what refers to a referrer is drawn below it', (t) => {
  const node = (hex: string, artifactType: string | undefined, referrers: object[] = []) => ({
    mediaType: 'x/y',
    digest: digestOf(hex),
    size: 1500,
    ...(artifactType === undefined ? {} : {artifactType}),
    referrers: referrers as never[],
  });
  const created = {annotations: {'org.opencontainers.image.created': new Date(NOW - 60_000).toISOString()}};
  const sections = [
    {
      digest: digestOf('0'),
      mediaType: 'x/y',
      platform: undefined,
      referrers: [
        {...node('1', 'a/sbom', [node('2', 'a/signature', [node('3', undefined)])]), ...created},
        node('4', 'a/evil\u001b[2J\u202e'),
      ],
    },
    {digest: digestOf('5'), mediaType: 'x/y', platform: 'linux/arm64', referrers: []},
  ];
  t.is(
    drawTree('r.test/a', sections, NOW),
    `r.test/a@${digestOf('0')}
├── a/sbom                    1.5 kB  1 min ago  ${digestOf('1')}
│   └── a/signature           1.5 kB             ${digestOf('2')}
│       └── no artifact type  1.5 kB             ${digestOf('3')}
└── a/evil?[2J?               1.5 kB             ${digestOf('4')}

linux/arm64  ${digestOf('5')}
└── no referrers
`,
  );
});
