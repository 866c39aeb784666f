import {spawn} from 'node:child_process';
import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {text} from 'node:stream/consumers';
import test from 'ava';
import {parse} from 'yaml';
import {type CredentialProviderFlags, credentialProvider} from '../../src/cli/credential-provider.ts';
import {COMPILED, call, MAIN} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const NOW = Date.UTC(2030, 0, 1);
const API_VERSION = 'credentialprovider.kubelet.k8s.io/v1';

/** A JWT that expires in so many seconds; nobody here verifies its signature. */
const tokenFor = (seconds: number, now = NOW): string =>
  [{alg: 'RS256'}, {sub: 'system:serviceaccount:team:app', exp: now / 1000 + seconds}]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .concat('c2lnbmF0dXJl')
    .join('.');

const requestOf = (fields: object): string =>
  JSON.stringify({
    apiVersion: API_VERSION,
    kind: 'CredentialProviderRequest',
    image: 'registry.example:5000/team/app',
    serviceAccountToken: tokenFor(3600),
    ...fields,
  });

/** What the command makes of a text on stdin. */
async function answerTo(stdin: string, flags: CredentialProviderFlags = {image: []}) {
  const printed = {stdout: '', stderr: ''};
  const screen = (name: 'stdout' | 'stderr') => ({
    write(written: string) {
      printed[name] += written;
    },
  });
  const io = {
    env: {},
    stdin: (async function* () {
      yield stdin.slice(0, 10);
      yield stdin.slice(10);
    })(),
    stdout: screen('stdout'),
    stderr: screen('stderr'),
  };
  const code = await credentialProvider(flags, io, NOW);
  return {code, ...printed};
}

test('a kubelet gets the token of the service account as the password for the registry of the image', async (t) => {
  const {code, stdout, stderr} = await answerTo(requestOf({}));
  t.is(stderr, '');
  t.is(code, 0);
  t.deepEqual(JSON.parse(stdout), {
    apiVersion: API_VERSION,
    kind: 'CredentialProviderResponse',
    cacheKeyType: 'Registry',
    cacheDuration: '3540s',
    auth: {'registry.example:5000': {username: 'service-account', password: tokenFor(3600)}},
  });
});

for (const [seconds, duration] of [
  [61, '1s'],
  [60, '0s'],
  [1, '0s'],
  [86_400, '3600s'],
] as const)
  test(`a token that lives for ${seconds} s more is cached for ${duration}`, async (t) => {
    const {stdout} = await answerTo(requestOf({serviceAccountToken: tokenFor(seconds)}));
    t.is(JSON.parse(stdout).cacheDuration, duration);
  });

const REFUSED: [what: string, stdin: string, problem: RegExp][] = [
  ['nothing', '', /^stdin is not a JSON object/],
  ['a text that is not JSON', 'hello', /^stdin is not a JSON object/],
  ['another version', requestOf({apiVersion: 'v1beta1'}), /set apiVersion: credentialprovider/],
  ['another kind', requestOf({kind: 'ExecCredential'}), /is not a CredentialProviderRequest/],
  ['no image', requestOf({image: undefined}), /names no image/],
  ['an image without a registry', requestOf({image: 'team/app'}), /"team\/app" names no registry/],
  ['a registry that is a URL', requestOf({image: 'https://registry.example/app'}), /names no registry/],
  ['no token', requestOf({serviceAccountToken: undefined}), /no serviceAccountToken: add tokenAttributes/],
  ['an expired token', requestOf({serviceAccountToken: tokenFor(-5)}), /expired 5 s ago/],
  ['a token that is not a JWT', requestOf({serviceAccountToken: 'secret'}), /is not a JWT with an expiry/],
  ['a token without an expiry', requestOf({serviceAccountToken: 'e30.e30.c2ln'}), /is not a JWT with an/],
  ['more than a megabyte', requestOf({padding: 'x'.repeat(2 ** 20)}), /larger than 1048576 bytes/],
];

for (const [what, stdin, problem] of REFUSED)
  test(`a request with ${what} is refused with the reason, and exit code 1`, async (t) => {
    const {code, stdout, stderr} = await answerTo(stdin);
    t.is(code, 1);
    t.is(stdout, '');
    t.regex(stderr, problem);
    t.notRegex(stderr, /secret|eyJ/, 'no error shows a token');
  });

test('--print-config prints the configuration with which the kubelet sends tokens', async (t) => {
  const {code, stdout} = await call([
    'credential-provider',
    '--print-config',
    '--image=registry.example:5000/team',
    '--image=*.example',
    '--audience=backref',
  ]);
  t.is(code, 0);
  t.deepEqual(parse(stdout), {
    apiVersion: 'kubelet.config.k8s.io/v1',
    kind: 'CredentialProviderConfig',
    providers: [
      {
        name: 'backref',
        apiVersion: API_VERSION,
        args: ['credential-provider'],
        matchImages: ['registry.example:5000/team', '*.example'],
        defaultCacheDuration: '0s',
        tokenAttributes: {
          serviceAccountTokenAudience: 'backref',
          cacheType: 'Token',
          requireServiceAccount: true,
        },
      },
    ],
  });
});

const MISUSED: [args: string[], problem: RegExp][] = [
  [['--print-config'], /needs --image .* and --audience/],
  [['--print-config', '--image=registry.example'], /needs --image .* and --audience/],
  [['--print-config', '--image=registry.example/*', '--audience=b'], /takes \* in the host alone/],
  [['--print-config', '--image=https://registry.example', '--audience=b'], /matches nothing/],
  [['--audience=b'], /are for --print-config/],
];

for (const [args, problem] of MISUSED)
  test(`"${args.join(' ')}" is refused with the reason, and exit code 2`, async (t) => {
    const {code, stderr} = await call(['credential-provider', ...args]);
    t.is(code, 2);
    t.regex(stderr, problem);
  });

test('the command answers in a process that loads none of the server’s modules', async (t) => {
  const folder = await createFolder(t);
  const preload = join(folder, 'loaded.mjs');
  await writeFile(
    preload,
    `import {registerHooks} from 'node:module';
import {writeSync} from 'node:fs';
registerHooks({load: (url, context, next) => (writeSync(2, url + '\\n'), next(url, context))});
`,
  );
  const child = spawn(process.execPath, [`--import=${preload}`, MAIN, 'credential-provider'], {
    env: {...COMPILED},
    cwd: folder,
  });
  child.stdin.end(requestOf({serviceAccountToken: tokenFor(3600, Date.now())}));
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.once('close', resolve)),
  ]);
  t.is(code, 0, stderr);
  t.is(JSON.parse(stdout).kind, 'CredentialProviderResponse');
  const sources = stderr.matchAll(/\/src\/(\S+)\n/g).map(([, path]) => path);
  t.deepEqual([...sources].filter((path) => !path?.startsWith('cli/')).toSorted(), [
    'oci/json.ts',
    'version.ts',
  ]);
  const packages = stderr.matchAll(/\/node_modules\/([\w-]+)\//g).map(([, name]) => name);
  t.deepEqual([...new Set(packages)], ['commander']);
});
