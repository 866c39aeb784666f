import test from 'ava';
import {createClientAddress} from '../../src/http/caller.ts';

const trusting = createClientAddress(['10.0.0.0/8', '192.0.2.1', '2001:db8::/32']);

const rows: [title: string, peer: string | undefined, forwardedFor: string | undefined, client: unknown][] = [
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

for (const [title, peer, forwardedFor, client] of rows) {
  test(`address of a client: ${title}`, (t) => t.is(trusting(peer, forwardedFor), client as string));
}

test('with no trusted proxy, X-Forwarded-For is ignored', (t) => {
  t.is(createClientAddress([])('127.0.0.1', '198.51.100.1'), '127.0.0.1');
});
