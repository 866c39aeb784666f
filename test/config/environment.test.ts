import test from 'ava';
import {scalarPaths} from '../../src/config/schema.ts';
import {AUTHORITY, SERVER_TLS} from '../support/certificates.ts';
import {loadGiven, oneRegistry, refusal} from '../support/settings.ts';

test('every scalar setting outside the registries has a variable', async (t) => {
  const config = await loadGiven({
    yaml: 'listen: {port: 1}',
    files: {'/tls/tls.crt': SERVER_TLS.cert, '/tls/tls.key': SERVER_TLS.key, '/tls/ca.crt': AUTHORITY},
    env: {
      BACKREF_LISTEN_HOST: '127.0.0.1',
      BACKREF_LISTEN_PORT: '5001',
      BACKREF_LISTEN_SERVE: 'main',
      BACKREF_LISTEN_TLS_CERT: '/tls/tls.crt',
      BACKREF_LISTEN_TLS_KEY: '/tls/tls.key',
      BACKREF_LISTEN_TLS_CLIENT_CA: '/tls/ca.crt',
      BACKREF_STORAGE_PATH: '/data',
      BACKREF_LISTEN_SEND_TIMEOUT: '30s',
      BACKREF_STORAGE_BLOBS_DRIVER: 'fs',
      BACKREF_STORAGE_BLOBS_PATH: '/blobs',
      BACKREF_STORAGE_METADATA_DRIVER: 'sqlite',
      BACKREF_STORAGE_METADATA_PATH: '/metadata/meta.db',
      BACKREF_CACHE_MEMORY: '1GiB',
      BACKREF_CACHE_MAX_SIZE: 'off',
      BACKREF_CACHE_MIN_FREE: '10GiB',
      BACKREF_CACHE_HIGH_WATERMARK: '80%',
      BACKREF_CACHE_LOW_WATERMARK: '70.5%',
      BACKREF_CACHE_KEEP: 'docker.io/library/*=3 ghcr.io/**=1',
      BACKREF_ACCESS_MODE: 'audit',
      BACKREF_ACCESS_TOKENS_SERVICE: 'registry.test',
      BACKREF_ACCESS_TOKENS_TTL: '10m',
      BACKREF_ACCESS_TOKENS_REALM: 'https://registry.test/token',
      BACKREF_WORKERS: '3',
      BACKREF_PINS: 'docker.io/library/{alpine,busybox}:3.*  ghcr.io/team/**',
      BACKREF_SHUTDOWN_GRACE: '5s',
      BACKREF_LIMITS_CONNECTIONS_TOTAL: '1000',
      BACKREF_LIMITS_CONNECTIONS_PER_ADDRESS: '200',
      BACKREF_LIMITS_REQUESTS_TOTAL: '100',
      BACKREF_LIMITS_REQUESTS_PER_CALLER: '20',
      BACKREF_LIMITS_REQUESTS_PIPELINED: '5',
      BACKREF_LIMITS_UPLOADS_TOTAL: '10',
      BACKREF_LIMITS_UPLOADS_PER_CALLER: '2',
      BACKREF_LIMITS_UPLOADS_UNFINISHED: '7',
      BACKREF_LIMITS_HEADERS_SIZE: '64KiB',
      BACKREF_LIMITS_HEADERS_COUNT: '50',
      BACKREF_LIMITS_HEADERS_TIMEOUT: '10s',
      BACKREF_LIMITS_BODIES_TIMEOUT: '20s',
      BACKREF_LIMITS_BODIES_MIN_RATE: '0',
      BACKREF_LIMITS_BODIES_MAX_FORM: '8KiB',
      BACKREF_UPLOADS_EXPIRE_AFTER: '1h',
      BACKREF_GARBAGE_INTERVAL: '0',
      BACKREF_GARBAGE_GRACE: '2h',
      BACKREF_LISTEN_TRUSTED_PROXIES: '10.0.0.0/8, ::1',
      BACKREF_LOG_LEVEL: 'warn',
      BACKREF_LOG_FORMAT: 'json',
      BACKREF_AUDIT_TO: '/log/audit.log',
      BACKREF_AUDIT_MAX_SIZE: '10MiB',
      BACKREF_AUDIT_KEEP: '3',
    },
  });
  const {registries, ...rest} = config;
  t.is(registries.length, 7);
  t.deepEqual(rest, {
    listen: [
      {
        address: {host: '127.0.0.1', port: 5001},
        tls: {cert: '/tls/tls.crt', key: '/tls/tls.key', clientCa: '/tls/ca.crt'},
        serve: 'main',
        sendTimeout: 30_000,
        trustedProxies: ['10.0.0.0/8', '::1'],
      },
    ],
    storage: {
      path: '/data',
      blobs: {driver: 'fs', path: '/blobs'},
      metadata: {driver: 'sqlite', path: '/metadata/meta.db'},
    },
    cache: {
      memory: 2 ** 30,
      maxSize: undefined,
      minFree: {bytes: 10 * 2 ** 30},
      highWatermark: 80,
      lowWatermark: 70.5,
      keep: [
        {match: 'docker.io/library/*', newest: 3},
        {match: 'ghcr.io/**', newest: 1},
      ],
    },
    access: {
      mode: 'audit',
      rules: undefined,
      groups: {},
      issuers: [],
      certificates: [],
      users: {htpasswd: undefined},
      tokens: {service: 'registry.test', ttl: 600_000, key: undefined, realm: 'https://registry.test/token'},
    },
    workers: 3,
    pins: ['docker.io/library/{alpine,busybox}:3.*', 'ghcr.io/team/**'],
    shutdown: {grace: 5000},
    limits: {
      connections: {total: 1000, perAddress: 200},
      requests: {total: 100, perCaller: 20, pipelined: 5},
      uploads: {total: 10, perCaller: 2, unfinished: 7},
      headers: {size: 65_536, count: 50, timeout: 10_000},
      bodies: {timeout: 20_000, minRate: 0, maxForm: 8192},
    },
    uploads: {expireAfter: 3_600_000},
    garbage: {interval: 0, grace: 7_200_000},
    scrub: {every: 2_592_000_000},
    audit: {to: '/log/audit.log', maxSize: 10 * 2 ** 20, keep: 3},
    log: {level: 'warn', format: 'json'},
  });
  // All but socket and socketMode, which exclude host and port.
  t.is(scalarPaths().length, 53);
});

test('a fault of a variable names the variable', async (t) => {
  const {faults} = await refusal({yaml: 'listen: {port: 1}', env: {BACKREF_LISTEN_PORT: 'http'}});
  t.deepEqual(faults, [
    {
      path: 'listen.port',
      value: '"http"',
      problem: 'must be a whole number from 0 to 65535',
      where: 'BACKREF_LISTEN_PORT',
    },
  ]);
});

test('an unknown BACKREF_ variable is a fault, with the probable name', async (t) => {
  const {faults} = await refusal({env: {BACKREF_LISTEN_PROT: '1'}});
  t.is(faults.length, 1);
  t.is(faults[0]?.where, 'BACKREF_LISTEN_PROT');
  t.regex(faults[0]?.problem ?? '', /did you mean "BACKREF_LISTEN_PORT"/);
});

test('a BACKREF_ variable that the file refers to is not a fault', async (t) => {
  const yaml = `${oneRegistry()}\n      # comment\nlisten: {host: "\${BACKREF_ADDRESS}"}`;
  t.deepEqual((await loadGiven({yaml, env: {BACKREF_ADDRESS: '127.0.0.1'}})).listen[0]?.address, {
    host: '127.0.0.1',
    port: 5000,
  });
});

test('the variables that Kubernetes sets for a Service named backref are neither settings nor faults', async (t) => {
  const config = await loadGiven({
    env: {
      BACKREF_SERVICE_HOST: '10.0.0.1',
      BACKREF_SERVICE_PORT: '5000',
      BACKREF_SERVICE_PORT_HTTP: '5000',
      BACKREF_PORT: 'tcp://10.0.0.1:5000',
      BACKREF_PORT_5000_TCP: 'tcp://10.0.0.1:5000',
      BACKREF_PORT_5000_TCP_ADDR: '10.0.0.1',
      // A Service named backref-listen.
      BACKREF_LISTEN_PORT: 'tcp://10.0.0.2:80',
    },
  });
  t.deepEqual(config.listen[0]?.address, {host: '0.0.0.0', port: 5000});
});
