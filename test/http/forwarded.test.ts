import test from 'ava';
import {createTrustedProxies} from '../../src/http/entrance.ts';
import {isLocal, originOf} from '../../src/http/forwarded.ts';
import {startBackref} from '../support/backref.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {entranceOf} from './http-server.ts';

const isTrustedProxy = createTrustedProxies(['10.0.0.0/8', '192.0.2.1', '2001:db8::/32']);
const trusting = entranceOf({isTrustedProxy});
const HOST = 'asked.example';

const clients: [
  title: string,
  peer: string | undefined,
  forwardedFor: string | undefined,
  client: unknown,
][] = [
  ['a direct connection is the client', '203.0.113.9', undefined, '203.0.113.9'],
  ['an untrusted peer cannot name a client', '203.0.113.9', '198.51.100.1', '203.0.113.9'],
  ['a trusted proxy names its client', '10.0.0.1', '198.51.100.1', '198.51.100.1'],
  ['several trusted proxies are skipped', '10.0.0.1', '198.51.100.1, 192.0.2.1, 10.9.9.9', '198.51.100.1'],
  ['entries that the client itself wrote do not count', '10.0.0.1', '1.1.1.1, 198.51.100.1', '198.51.100.1'],
  [
    'where all are trusted proxies, the first one is the client',
    '10.0.0.1',
    '10.0.0.3, 10.0.0.2',
    '10.0.0.3',
  ],
  ['a proxy that names no client is the client', '10.0.0.1', undefined, '10.0.0.1'],
  ['text that is not an address ends the walk', '10.0.0.1', '198.51.100.1, unknown', '10.0.0.1'],
  ['an IPv4 address on an IPv6 socket', '::ffff:10.0.0.1', '::ffff:198.51.100.1', '198.51.100.1'],
  ['the same in hexadecimal', '::ffff:a00:1', '::FFFF:c633:6401', '198.51.100.1'],
  ['an IPv6 proxy', '2001:db8::5', '2001:4860:0::8888', '2001:4860::8888'],
  ['ports of IPv4 and IPv6 are cut', '10.0.0.1', '[2001:4860::1]:443, 10.0.0.2:8080', '2001:4860::1'],
  ['a zone is cut', 'fe80::1%eth0', undefined, 'fe80::1'],
  ['a connection that has ended', undefined, '198.51.100.1', undefined],
];

for (const [title, peer, forwardedFor, client] of clients) {
  const headers = forwardedFor === undefined ? {} : {'x-forwarded-for': forwardedFor};
  test(`address of a client: ${title}`, (t) => {
    t.is(originOf({peer, headers}, trusting).client, client as string);
  });
  if (forwardedFor === undefined) continue;
  const elements = forwardedFor.split(', ').map((entry) => `for="${entry}"`);
  test(`address of a client by Forwarded: ${title}`, (t) => {
    t.is(originOf({peer, headers: {forwarded: elements.join(', ')}}, trusting).client, client as string);
  });
}

test('without trusted proxies, no header names the client, the scheme or the host', (t) => {
  const headers = {
    host: HOST,
    'x-forwarded-for': '198.51.100.1',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'evil.example',
    forwarded: 'for=198.51.100.1;proto=https;host=evil.example',
  };
  for (const peer of ['127.0.0.1', '::1', '10.0.0.1', undefined])
    t.deepEqual(
      originOf({peer, headers}, entranceOf({isTrustedProxy: createTrustedProxies([])})),
      {client: peer, scheme: 'http', host: HOST},
      peer,
    );
});

const PROXY = '10.0.0.1';
const forwarded: [
  title: string,
  headers: Record<string, string>,
  scheme: string,
  host: string | undefined,
][] = [
  ['nothing is forwarded', {}, 'http', HOST],
  ['the scheme', {'x-forwarded-proto': 'https'}, 'https', HOST],
  ['the scheme in capital letters', {'x-forwarded-proto': 'HTTPS'}, 'https', HOST],
  ['another scheme is ignored', {'x-forwarded-proto': 'javascript'}, 'http', HOST],
  ['the host', {'x-forwarded-host': 'hub.example:8443'}, 'http', 'hub.example:8443'],
  ['an IPv6 host', {'x-forwarded-host': '[2001:db8::1]:443'}, 'http', '[2001:db8::1]:443'],
  ['a host that is none is ignored', {'x-forwarded-host': 'a" realm="b'}, 'http', HOST],
  ['a host with a path is ignored', {'x-forwarded-host': 'a/b'}, 'http', HOST],
  [
    'of several, what the trusted proxy appended counts',
    {
      'x-forwarded-for': '1.1.1.1, 198.51.100.1',
      'x-forwarded-proto': 'http, https',
      'x-forwarded-host': 'evil.example, hub.example',
    },
    'https',
    'hub.example',
  ],
  [
    'of two trusted proxies, the one that the client asked counts',
    {
      'x-forwarded-for': '198.51.100.1, 10.0.0.2',
      'x-forwarded-proto': 'https, http',
      'x-forwarded-host': 'hub.example, inner.example',
    },
    'https',
    'hub.example',
  ],
  [
    'what a proxy behind another one replaced counts for both',
    {'x-forwarded-for': '198.51.100.1, 10.0.0.2', 'x-forwarded-proto': 'https'},
    'https',
    HOST,
  ],
  [
    'Forwarded',
    {forwarded: 'for=198.51.100.1; Proto=https ;host="hub.example:443"'},
    'https',
    'hub.example:443',
  ],
  ['Forwarded, without a client', {forwarded: 'proto=https'}, 'https', HOST],
  ['Forwarded, with a hidden client', {forwarded: 'for=_hidden;proto=https'}, 'https', HOST],
  [
    'Forwarded, with separators in quotes',
    {forwarded: 'for="a,b;c\\"d";proto=http, for=198.51.100.1;proto=https;host=hub.example'},
    'https',
    'hub.example',
  ],
  [
    'Forwarded of two trusted proxies',
    {forwarded: 'for=198.51.100.1;proto=https;host=hub.example,for=10.0.0.2;proto=http;host=inner'},
    'https',
    'hub.example',
  ],
  ['Forwarded that cannot be read', {forwarded: 'for=198.51.100.1;proto=https;host="hub'}, 'http', HOST],
  [
    'Forwarded beside X-Forwarded-For, which a client smuggled in',
    {forwarded: 'for=127.0.0.1;proto=https;host=evil.example', 'x-forwarded-for': '198.51.100.1'},
    'http',
    HOST,
  ],
  [
    'Forwarded beside X-Forwarded-Proto',
    {forwarded: 'proto=http;host=evil.example', 'x-forwarded-proto': 'https'},
    'https',
    HOST,
  ],
];

for (const [title, headers, scheme, host] of forwarded) {
  test(`origin of a request: ${title}`, (t) => {
    const origin = originOf({peer: PROXY, headers: {host: HOST, ...headers}}, trusting);
    t.is(origin.scheme as string, scheme);
    t.is(origin.host, host);
  });
}

test('a smuggled Forwarded does not name the client beside X-Forwarded-For', (t) => {
  const headers = {forwarded: 'for=127.0.0.1', 'x-forwarded-for': '198.51.100.1'};
  t.is(originOf({peer: PROXY, headers}, trusting).client, '198.51.100.1');
});

test('the scheme of a connection with TLS is https, and a trusted proxy may say otherwise', (t) => {
  const secure = entranceOf({isTrustedProxy, isSecure: true});
  t.is(originOf({peer: '203.0.113.9', headers: {'x-forwarded-proto': 'http'}}, secure).scheme, 'https');
  t.is(originOf({peer: PROXY, headers: {'x-forwarded-proto': 'http'}}, secure).scheme, 'http');
});

test('the peers of a Unix socket are trusted where the list has "unix"', (t) => {
  const headers = {'x-forwarded-for': '198.51.100.1', 'x-forwarded-proto': 'https'};
  const unix = entranceOf({isTrustedProxy: createTrustedProxies(['unix'])});
  t.like(originOf({peer: undefined, headers}, unix), {client: '198.51.100.1', scheme: 'https'});
  t.like(originOf({peer: undefined, headers}, trusting), {client: undefined, scheme: 'http'});
  t.is(originOf({peer: '203.0.113.9', headers}, unix).client, '203.0.113.9');
});

test('a long header of a client is read in one pass', (t) => {
  for (const text of [' '.repeat(16_000), '"'.repeat(16_000), 'a='.repeat(8000), 'for=a;'.repeat(2600)])
    t.is(originOf({peer: PROXY, headers: {forwarded: `${text}\u0001`}}, trusting).client, PROXY);
});

test('a request is local through a loopback listener, unless it names a proxy', (t) => {
  t.true(isLocal({host: HOST, via: '1.1 other'}, entranceOf({isLoopback: true})));
  t.false(isLocal({host: HOST}, entranceOf({isLoopback: false})));
  for (const name of ['forwarded', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-real-ip'])
    t.false(isLocal({[name]: 'x'}, entranceOf({isLoopback: true, isTrustedProxy})), name);
});

test('a registry is chosen by the host that a trusted proxy was asked for, and by no other forwarded host', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const other = await createScriptedUpstream(t);
  const registries = [
    upstream,
    {url: other.url, name: 'hub.example', hosts: ['hub.example'], push: 'deny' as const},
  ];
  const refusal = async (trustedProxies: string[], headers: Record<string, string>) => {
    const proxy = await startBackref(t, {registries, trustedProxies});
    const got = await proxy.ask('/v2/app/manifests/1', {method: 'PUT', headers});
    return /registry (\S+) is a mirror/.exec(got.body.toString())?.[1];
  };
  const headers = {'X-Forwarded-Host': 'hub.example'};
  t.is(await refusal([], headers), 'docker.io');
  t.is(await refusal(['127.0.0.1'], headers), 'hub.example');
  t.is(await refusal(['127.0.0.1'], {Forwarded: 'host=hub.example'}), 'hub.example');
});
