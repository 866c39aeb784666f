import test from 'ava';
import {formatConfig} from '../../src/config/show.ts';
import {AUTHORITY, OTHER_SERVER_TLS, SERVER_TLS} from '../support/certificates.ts';
import {loadGiven, refusal, type SettingsInput} from '../support/settings.ts';

const FILES = {
  'tls.crt': SERVER_TLS.cert,
  'tls.key': SERVER_TLS.key,
  'other.key': OTHER_SERVER_TLS.key,
  'ca.crt': AUTHORITY,
  nonsense: 'nonsense',
};

const LIST = `listen:
  - {port: 443, tls: {cert: tls.crt, key: tls.key, clientCa: ca.crt}}
  - {host: 127.0.0.1, trustedProxies: [127.0.0.1], sendTimeout: 5s}
  - {socket: ./backref.sock, socketMode: "0600", trustedProxies: [unix]}
  - {port: 9000, serve: admin}
`;

test('a list has one listener for each entry, each with its own settings', async (t) => {
  const {listen} = await loadGiven({yaml: LIST, files: FILES});
  const common = {serve: 'main' as const, tls: undefined, sendTimeout: 60_000, trustedProxies: []};
  t.deepEqual(listen, [
    {
      ...common,
      address: {host: '0.0.0.0', port: 443},
      tls: {cert: 'tls.crt', key: 'tls.key', clientCa: 'ca.crt'},
    },
    {...common, address: {host: '127.0.0.1', port: 5000}, sendTimeout: 5000, trustedProxies: ['127.0.0.1']},
    {...common, address: {socket: './backref.sock', socketMode: 0o600}, trustedProxies: ['unix']},
    {...common, address: {host: '0.0.0.0', port: 9000}, serve: 'admin'},
  ]);
});

for (const [title, yaml] of [
  ['a mapping', 'listen: {port: 443, tls: {cert: tls.crt, key: tls.key}}'],
  ['a Unix socket', 'listen: {socket: ./backref.sock}'],
  ['a list', LIST],
] as const) {
  test(`${title} is shown so that it can be read again`, async (t) => {
    const config = await loadGiven({yaml, files: FILES});
    t.deepEqual((await loadGiven({yaml: formatConfig(config), files: FILES})).listen, config.listen);
  });
}

test('a Unix socket is for its owner and their group, unless a mode is set', async (t) => {
  const {listen} = await loadGiven({yaml: 'listen: {socket: b.sock}'});
  t.deepEqual(listen[0]?.address, {socket: 'b.sock', socketMode: 0o660});
});

test('variables set a Unix socket too', async (t) => {
  const env = {BACKREF_LISTEN_SOCKET: '/run/b.sock', BACKREF_LISTEN_SOCKET_MODE: '0666'};
  const {listen} = await loadGiven({env});
  t.deepEqual(listen[0]?.address, {socket: '/run/b.sock', socketMode: 0o666});
});

test('a variable replaces a setting that is itself a list', async (t) => {
  const env = {BACKREF_PINS: 'docker.io/library/*'};
  t.deepEqual((await loadGiven({yaml: 'pins: []', env})).pins, ['docker.io/library/*']);
});

test('a variable has no place in a list, and the fault says what to do', async (t) => {
  const env = {BACKREF_LISTEN_PORT: '5001'};
  const {faults} = await refusal({yaml: 'listen: [{port: 1}]', env});
  t.deepEqual(faults, [
    {
      path: '',
      where: 'BACKREF_LISTEN_PORT',
      problem:
        'has no place: listen is a list in the file. Write the value there, or ${BACKREF_LISTEN_PORT} to use the variable',
    },
  ]);
  const used = await loadGiven({yaml: 'listen: [{port: "${BACKREF_PORT}"}]', env: {BACKREF_PORT: '5001'}});
  t.deepEqual(used.listen[0]?.address, {host: '0.0.0.0', port: 5001});
});

const faulty: [title: string, yaml: string, fault: string][] = [
  ['an empty list', 'listen: []', 'listen | is empty: name at least one listener, or remove the key'],
  [
    'no listener for registries',
    'listen: [{serve: admin}]',
    'listen[0].serve | is admin for every listener: add one that serves registries (serve: main)',
  ],
  [
    'one address twice',
    'listen: [{port: 1}, {port: 2}, {port: "1"}]',
    'listen[2] | listens on 0.0.0.0:1, as listen[0] does: choose another port',
  ],
  [
    'a socket beside an address',
    'listen: {socket: b.sock, port: 1}',
    'listen.socket | cannot stand beside host and port: add another listener for them',
  ],
  [
    'TLS for a socket',
    'listen: {socket: b.sock, tls: {cert: tls.crt, key: tls.key}}',
    'listen.tls | is not for a Unix socket, whose peers are on this machine',
  ],
  [
    'a path that is too long for a socket',
    `listen: {socket: ${'a'.repeat(104)}}`,
    'listen.socket | must be a path of at most 103 bytes',
  ],
  [
    'a mode without a socket',
    'listen: {socketMode: "0600"}',
    'listen.socketMode | is for a listener with a socket',
  ],
  [
    'a mode without quotes, which YAML reads as a decimal number',
    'listen: {socket: b.sock, socketMode: 0660}',
    'listen.socketMode | must be the mode of a file as octal digits in quotes, e.g. "0660"',
  ],
  [
    'the peers of a socket as proxies of an address',
    'listen: {trustedProxies: [unix]}',
    'listen.trustedProxies | may have "unix" only for a listener with a socket',
  ],
  [
    'an unknown key in a list',
    'listen: [{ports: 1}]',
    'listen[0].ports | is not known (did you mean "port"?): allowed here are host, port, socket, socketMode, tls, serve, sendTimeout, trustedProxies',
  ],
  [
    'a certificate without a key',
    'listen: {tls: {cert: tls.crt}}',
    'listen.tls.key | is missing: it must be a path; "~" is not expanded, write ${HOME}',
  ],
  [
    'a certificate that does not exist',
    'listen: {tls: {cert: absent, key: tls.key}}',
    'listen.tls.cert | names a file that does not exist; relative paths start at the working directory',
  ],
  [
    'a certificate that is none',
    'listen: {tls: {cert: nonsense, key: tls.key}}',
    'listen.tls.cert | names a file that has no certificate in PEM',
  ],
  [
    'a key that is none',
    'listen: [{tls: {cert: tls.crt, key: nonsense}}]',
    'listen[0].tls.key | names a file that has no private key in PEM, or one that is encrypted',
  ],
  [
    'a key of another certificate',
    'listen: {tls: {cert: tls.crt, key: other.key}}',
    'listen.tls.key | names a file that has the key of another certificate than the one in tls.cert',
  ],
  [
    'an authority that is none',
    'listen: {tls: {cert: tls.crt, key: tls.key, clientCa: nonsense}}',
    'listen.tls.clientCa | names a file that has no certificate in PEM',
  ],
];

for (const [title, yaml, fault] of faulty) {
  test(`a fault: ${title}`, async (t) => {
    const input: SettingsInput = {yaml, files: FILES};
    const {faults} = await refusal(input);
    t.deepEqual(
      faults.map(({path, problem}) => `${path} | ${problem}`),
      [fault],
    );
  });
}
