import test from 'ava';
import {formatAddress, hostInUrl, isEveryAddress, isLocalOnly, isLoopback, localUrl} from '../src/address.ts';

test('a client on the same machine reaches a server that listens on all addresses at the loopback address of that family', (t) => {
  t.is(localUrl({host: '0.0.0.0', port: 5000}), 'http://127.0.0.1:5000');
  t.is(localUrl({host: '::', port: 5000}), 'http://[::1]:5000');
});

test('a client on the same machine reaches a server that listens on one address at that address', (t) => {
  t.is(localUrl({host: '127.0.0.1', port: 80}), 'http://127.0.0.1:80');
  t.is(localUrl({host: 'fd00::2', port: 5000}), 'http://[fd00::2]:5000');
  t.is(localUrl({host: 'mirror.lan', port: 5000}), 'http://mirror.lan:5000');
});

test('an IPv6 address is in brackets in a URL', (t) => {
  t.deepEqual(['::1', '10.0.0.1', 'localhost'].map(hostInUrl), ['[::1]', '10.0.0.1', 'localhost']);
});

test('every address and loopback addresses are recognized', (t) => {
  const hosts = ['0.0.0.0', '::', '127.1.2.3', '::1', 'localhost', '10.0.0.1', '127.0.0.1.example'];
  t.deepEqual(hosts.filter(isEveryAddress), ['0.0.0.0', '::']);
  t.deepEqual(hosts.filter(isLoopback), ['127.1.2.3', '::1', 'localhost']);
});

test('with TLS the URL is one of https', (t) => {
  t.is(localUrl({host: '0.0.0.0', port: 5000}, true), 'https://127.0.0.1:5000');
});

test('a Unix socket is named by its path, and only this machine can connect to it', (t) => {
  const address = {socket: '/run/backref.sock', socketMode: 0o660};
  t.is(localUrl(address), 'unix:/run/backref.sock');
  t.is(formatAddress(address), '/run/backref.sock');
  t.true(isLocalOnly(address));
  t.deepEqual(
    ['127.0.0.1', '0.0.0.0'].map((host) => isLocalOnly({host, port: 1})),
    [true, false],
  );
});
