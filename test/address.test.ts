import test from 'ava';
import {hostInUrl, isEveryAddress, isLoopback, localUrl} from '../src/address.ts';

test('a client on the same machine reaches a server that listens on all addresses at the loopback address of that family', (t) => {
  t.is(localUrl('0.0.0.0', 5000), 'http://127.0.0.1:5000');
  t.is(localUrl('::', 5000), 'http://[::1]:5000');
});

test('a client on the same machine reaches a server that listens on one address at that address', (t) => {
  t.is(localUrl('127.0.0.1', 80), 'http://127.0.0.1:80');
  t.is(localUrl('fd00::2', 5000), 'http://[fd00::2]:5000');
  t.is(localUrl('mirror.lan', 5000), 'http://mirror.lan:5000');
});

test('an IPv6 address is in brackets in a URL', (t) => {
  t.deepEqual(['::1', '10.0.0.1', 'localhost'].map(hostInUrl), ['[::1]', '10.0.0.1', 'localhost']);
});

test('every address and loopback addresses are recognized', (t) => {
  const hosts = ['0.0.0.0', '::', '127.1.2.3', '::1', 'localhost', '10.0.0.1', '127.0.0.1.example'];
  t.deepEqual(hosts.filter(isEveryAddress), ['0.0.0.0', '::']);
  t.deepEqual(hosts.filter(isLoopback), ['127.1.2.3', '::1', 'localhost']);
});
