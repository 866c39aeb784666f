import type {NetworkInterfaceInfo} from 'node:os';
import test from 'ava';
import {banner} from '../../src/cli/banner.ts';
import type {Address} from '../../src/listeners.ts';
import {loadGiven} from '../support/settings.ts';

const ipv4 = (address: string, internal = false): NetworkInterfaceInfo => ({
  address,
  netmask: '255.255.255.0',
  family: 'IPv4',
  mac: '00:00:00:00:00:00',
  internal,
  cidr: null,
});

const INTERFACES = {
  lo: [ipv4('127.0.0.1', true)],
  eth0: [ipv4('192.168.1.5'), ipv4('169.254.3.4')],
};

const MAIN: Address = {
  host: '0.0.0.0',
  port: 5000,
  socket: undefined,
  url: 'http://127.0.0.1:5000',
  serves: 'main',
};

const bannerOf = async (host: string, interfaces = INTERFACES, others: Address[] = []) =>
  banner({
    version: '1.2.3',
    config: await loadGiven({}),
    source: 'built-in default',
    addresses: [{...MAIN, host, url: `http://${host}:5000`}, ...others],
    pid: 4711,
    interfaces,
  });

test('a server that listens on all addresses says so, and how to reach it from here and from elsewhere', async (t) => {
  for (const host of ['0.0.0.0', '::']) {
    const text = await bannerOf(host);
    t.regex(text, /^backref 1\.2\.3 listens on every address of this machine, port 5000$/m);
    t.regex(text, /^ {2}for others {5}http:\/\/192\.168\.1\.5:5000$/m);
    t.regex(text, /docker pull localhost:5000\/alpine$/m);
    t.regex(text, /plain HTTP.*\{"insecure-registries": \["192\.168\.1\.5:5000"\]\}/);
    t.notRegex(text, /127\.0\.0\.1|169\.254/);
  }
});

test('the banner says how the configuration is reloaded', async (t) => {
  t.regex(
    await bannerOf('127.0.0.1'),
    /^ {2}configuration {2}built-in default; after a change: kill -HUP 4711$/m,
  );
});

test('a server on loopback does not say how to reach it from elsewhere', async (t) => {
  for (const host of ['127.0.0.1', '127.0.0.2', 'localhost']) {
    const text = await bannerOf(host);
    t.true(text.startsWith(`backref 1.2.3 listens on http://${host}:5000\n`));
    t.notRegex(text, /others|plain HTTP/);
    t.regex(text, /docker pull localhost:5000\/alpine/);
  }
});

test('a server that listens on one network address is reached at it from everywhere', async (t) => {
  const text = await bannerOf('192.168.1.5', {lo: [], eth0: []});
  t.regex(text, /listens on http:\/\/192\.168\.1\.5:5000$/m);
  t.regex(text, /for others +http:\/\/192\.168\.1\.5:5000$/m);
  t.regex(text, /docker pull 192\.168\.1\.5:5000\/alpine/);
});

test('a server with TLS is reached by https, and needs no exception for plain HTTP', async (t) => {
  const text = banner({
    version: '1.2.3',
    config: await loadGiven({}),
    source: 'built-in default',
    addresses: [{...MAIN, url: 'https://127.0.0.1:5000'}],
    pid: 4711,
    interfaces: INTERFACES,
  });
  t.regex(text, /listens on every address of this machine, port 5000, with TLS$/m);
  t.regex(text, /for others +https:\/\/192\.168\.1\.5:5000$/m);
  t.notRegex(text, /plain HTTP/);
});

test('every listener is named, with what it serves', async (t) => {
  const socket = {host: undefined, port: undefined, socket: '/run/b.sock', url: 'unix:/run/b.sock'};
  const text = await bannerOf('127.0.0.1', INTERFACES, [
    {...MAIN, ...socket, serves: 'main'},
    {...MAIN, host: '127.0.0.1', port: 9000, url: 'http://127.0.0.1:9000', serves: 'admin'},
  ]);
  t.regex(text, /listens on http:\/\/127\.0\.0\.1:5000$/m);
  t.regex(text, /^ {2}and on +unix:\/run\/b\.sock$/m);
  t.regex(text, /^ {2}administration +http:\/\/127\.0\.0\.1:9000$/m);
});
