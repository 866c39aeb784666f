import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {describeConfig} from '../../src/config/show.ts';
import {valueAt} from '../../src/config/tree.ts';
import {AUTHORITY} from '../support/certificates.ts';
import {loadGiven, refusal} from '../support/settings.ts';

const issuers = (...lines: string[]): string =>
  ['access:', '  issuers:', ...lines.map((line) => `    - ${line}`)].join('\n');
const certificates = (...lines: string[]): string =>
  ['access:', '  certificates:', ...lines.map((line) => `    - ${line}`)].join('\n');

const ALL = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];

test('an issuer needs a name, its URL and an audience', async (t) => {
  const yaml = issuers(
    '{name: gha, issuer: "https://token.actions.githubusercontent.com", audience: backref}',
  );
  t.deepEqual((await loadGiven({yaml})).access.issuers as unknown, [
    {
      name: 'gha',
      issuer: 'https://token.actions.githubusercontent.com',
      audience: ['backref'],
      jwks: undefined,
      algorithms: ALL,
      require: {},
      claims: undefined,
      maxAge: undefined,
      insecure: false,
      ca: [],
    },
  ]);
});

test('an issuer of another kind names a file of keys, and the rest can be set', async (t) => {
  const yaml = issuers(
    '{name: k8s, issuer: cluster, audience: [a, b], jwks: /keys.json, algorithms: [ES256], require: {namespace: team-*}, claims: [namespace], maxAge: 1h, ca: /ca.pem}',
  );
  const config = await loadGiven({yaml, files: {'/keys.json': '{"keys": []}', '/ca.pem': AUTHORITY}});
  t.deepEqual(config.access.issuers as unknown, [
    {
      name: 'k8s',
      issuer: 'cluster',
      audience: ['a', 'b'],
      jwks: '/keys.json',
      algorithms: ['ES256'],
      require: {namespace: 'team-*'},
      claims: ['namespace'],
      maxAge: 3_600_000,
      insecure: false,
      ca: [AUTHORITY],
    },
  ]);
  const [shown] = valueAt(describeConfig(config), ['access', 'issuers']) as object[];
  t.like(shown, {maxAge: '1h', ca: [`[${AUTHORITY.length} characters of PEM]`]});
});

test('plain HTTP is permitted for loopback addresses, and where the operator says that the network is trusted', async (t) => {
  for (const more of [
    'issuer: "http://127.0.0.1:8080"',
    'issuer: "http://[::1]:8080"',
    'issuer: "http://idp.test", insecure: true',
    'issuer: cluster, jwks: "http://localhost/keys"',
    'issuer: "http://idp.test", jwks: "https://idp.test/keys"',
  ])
    t.is(
      (await loadGiven({yaml: issuers(`{name: idp, audience: b, ${more}}`)})).access.issuers.length,
      1,
      more,
    );
});

const GOOD = 'audience: b, issuer: "https://idp.test"';

const FAULTS: [what: string, yaml: string, path: string, problem: RegExp][] = [
  [
    'a name with other characters',
    issuers(`{name: "a:b", ${GOOD}}`),
    'access.issuers[0].name',
    /must be a name of/,
  ],
  [
    'the name of another kind of caller',
    issuers(`{name: user, ${GOOD}}`),
    'access.issuers[0].name',
    /choose one/,
  ],
  ['no audience', issuers('{name: idp, issuer: "https://idp.test"}'), 'access.issuers[0].audience', /list/],
  [
    'an empty audience',
    issuers('{name: idp, issuer: "https://idp.test", audience: []}'),
    'access.issuers[0].audience',
    /is empty: name the audience/,
  ],
  [
    'a symmetric algorithm',
    issuers(`{name: idp, ${GOOD}, algorithms: [HS256]}`),
    'access.issuers[0].algorithms[0]',
    /must be RS256 or/,
  ],
  [
    'the algorithm none',
    issuers(`{name: idp, ${GOOD}, algorithms: [none]}`),
    'access.issuers[0].algorithms[0]',
    /must be RS256 or/,
  ],
  [
    'a claim that must be a number',
    issuers(`{name: idp, ${GOOD}, require: {run: 1}}`),
    'access.issuers[0].require.run',
    /must be a text, or a pattern/,
  ],
  [
    'an issuer whose keys cannot be found',
    issuers('{name: idp, audience: b, issuer: cluster}'),
    'access.issuers[0].issuer',
    /must be a URL that begins with https:\/\/.*name a file or a URL of its keys as jwks/,
  ],
  [
    'plain HTTP',
    issuers('{name: idp, audience: b, issuer: "http://idp.test"}'),
    'access.issuers[0].issuer',
    /is plain HTTP.*insecure: true/,
  ],
  [
    'keys over plain HTTP',
    issuers(`{name: idp, ${GOOD}, jwks: "http://idp.test/keys"}`),
    'access.issuers[0].jwks',
    /is plain HTTP/,
  ],
  [
    'a file of keys that is not there',
    issuers(`{name: idp, ${GOOD}, jwks: /keys}`),
    'access.issuers[0].jwks',
    /names a file that does not exist/,
  ],
  [
    'a file that has no keys',
    issuers(`{name: idp, ${GOOD}, jwks: /not-keys}`),
    'access.issuers[0].jwks',
    /names a file that is not a JSON Web Key Set/,
  ],
  [
    'an authority that is not a certificate',
    issuers(`{name: idp, ${GOOD}, ca: /not-keys}`),
    'access.issuers[0].ca',
    /is not a PEM certificate/,
  ],
  [
    'a name that is taken',
    issuers(`{name: idp, ${GOOD}}`, '{name: idp, audience: b, issuer: "https://other.test"}'),
    'access.issuers[1].name',
    /must be unique: it is already at access.issuers\[0\].name/,
  ],
  [
    'an issuer that is there twice',
    issuers(`{name: idp, ${GOOD}}`, `{name: other, ${GOOD}}`),
    'access.issuers[1].issuer',
    /must be unique: it is already at access.issuers\[0\].issuer/,
  ],
  [
    'an unknown setting',
    issuers(`{name: idp, ${GOOD}, key: a}`),
    'access.issuers[0].key',
    /allowed here are name/,
  ],
  ['a certificate of nobody', certificates('{subject: "CN=a"}'), 'access.certificates[0].user', /is missing/],
  [
    'a user with a space',
    certificates('{subject: "CN=a", user: "a b"}'),
    'access.certificates[0].user',
    /without spaces and colons/,
  ],
  [
    'a certificate without a pattern',
    certificates('{user: a}'),
    'access.certificates[0]',
    /either subject or san/,
  ],
  [
    'a certificate with two patterns',
    certificates('{subject: "CN=a", san: a, user: a}'),
    'access.certificates[0]',
    /either subject or san/,
  ],
];

for (const [what, yaml, path, problem] of FAULTS)
  test(`${what} is refused with its place and what is allowed`, async (t) => {
    const {faults} = await refusal({yaml, files: {'/not-keys': '{"kty": "RSA"}'}});
    t.deepEqual(
      faults.map((fault) => fault.path),
      [path],
    );
    t.regex(faults[0]?.problem ?? '', problem);
  });

test('what the security page shows of issuers and certificates is a valid configuration', async (t) => {
  const page = await readFile(join(import.meta.dirname, '../../docs/security.md'), 'utf8');
  const [, sections = ''] = page.split('## Tokens of issuers');
  const examples = [...sections.matchAll(/```yaml\n(access:\n {2}(?:issuers|certificates):[\s\S]*?)```/g)];
  t.is(examples.length, 2);
  for (const [, yaml = ''] of examples) {
    const {access} = await loadGiven({yaml, files: {'/etc/backref/jwks.json': '{"keys": []}'}});
    t.true(access.issuers.length + access.certificates.length > 0);
  }
});

test('certificates belong to users by their subject or an alternative name', async (t) => {
  const yaml = certificates(
    '{subject: "O=Example,CN=node-*", user: node}',
    '{san: "spiffe://t/**", user: mesh}',
  );
  t.deepEqual((await loadGiven({yaml})).access.certificates, [
    {subject: 'O=Example,CN=node-*', san: undefined, user: 'node'},
    {subject: undefined, san: 'spiffe://t/**', user: 'mesh'},
  ]);
});
