import {readdir, readFile} from 'node:fs/promises';
import {join, resolve} from 'node:path';
import test from 'ava';
import type {Command} from 'commander';
import {createProgram} from '../../src/cli/program.ts';
import {settingPaths} from '../../src/config/schema.ts';
import {describeConfig} from '../../src/config/show.ts';
import {valueAt} from '../../src/config/tree.ts';
import {type CountedRequests, createEvents, type EventMap, type LoggedEvent} from '../../src/events.ts';
import {endpointsOf, type Verbs} from '../../src/http/routes.ts';
import {LINES} from '../../src/observe/lines.ts';
import {createMetrics} from '../../src/observe/metrics.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {ERRORS} from '../../src/oci/errors.ts';
import {parseName} from '../../src/oci/name.ts';
import {loadGiven, oneRegistry} from '../support/settings.ts';

const PROJECT = resolve(import.meta.dirname, '../..');
const page = await readFile(join(PROJECT, 'docs/reference.md'), 'utf8');

/** What the page has below a heading, up to the next one of the same level. */
function section(heading: string): string {
  const [hashes = ''] = heading.split(' ');
  const [, text = ''] = page.split(`\n${heading}\n`);
  return text.split(`\n${hashes} `)[0] ?? '';
}

/** The cells of each row of a section's table. */
const rows = (text: string): string[][] =>
  text
    .split('\n')
    .filter((line) => /^\| [^|]*`/.test(line))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );

const quoted = (text: string): string => `\`${text}\``;

test('the settings with their defaults', async (t) => {
  const {registries, ...rest} = describeConfig(await loadGiven({yaml: oneRegistry()}));
  const tree = {...rest, registries: {NAME: valueAt(registries, ['r.test'])}};
  const expected = settingPaths().map((path) => {
    const value = path.at(-1) === 'url' ? undefined : valueAt(tree, path);
    const text = Array.isArray(value) ? JSON.stringify(value) : String(value);
    return [quoted(path.join('.')), value === undefined ? '–' : quoted(text)];
  });
  t.deepEqual(
    rows(section('## Settings')).map(([setting, , value]) => [setting, value]),
    expected,
  );
});

const digest = digestOf(Buffer.from('hello'));
const served = {registry: 'r.test', repository: 'team/app', digest, outcome: 'hit'} as const;
const upstream = {host: 'r.test', reason: 'refused', kind: 'unreachable'} as const;
const attached = {registry: 'r.test', name: 'team/app', host: 'r.test', subject: digest, changes: 1};
const error = new Error('planted');

/** One of each event, with facts that set every label. */
const SAMPLES: {[Name in LoggedEvent]: EventMap[Name][0]} = {
  'request.start': {id: '1', method: 'GET', url: '/v2/'},
  'request.end': {
    id: '1',
    method: 'GET',
    url: '/v2/',
    kind: 'manifest',
    status: 200,
    outcome: 'hit',
    reason: undefined,
    ms: 1,
    received: 0,
    bytes: 1,
    client: undefined,
    userAgent: undefined,
    caller: 'user:alice',
    action: 'pull',
    registry: 'r.test',
    repository: parseName('library/alpine'),
    digest: undefined,
    cache: undefined,
  },
  'request.fault': {id: '1', error},
  'worker.ended': {reason: 'refused', ms: 100},
  'workers.started': {count: 2},
  'workers.unavailable': {count: 2},
  'server.fault': {origin: 'promise', error},
  'access.denied': {
    mode: 'enforce',
    caller: 'user:alice',
    action: 'push',
    registry: 'r.test',
    repository: 'team/app',
    tag: 'v1',
    reason: 'no rule allows it',
  },
  'client.stalled': {address: '10.0.0.1', ms: 1},
  'limit.exceeded': {limit: 'limits.requests.total', client: '10.0.0.1'},
  'limit.reached': {limit: 'limits.requests.total', reason: 'full'},
  'login.accepted': {method: 'password'},
  'login.refused': {method: 'password', reason: 'wrong', client: '10.0.0.1'},
  'login.users-rejected': {path: './htpasswd', reason: 'line 1'},
  'listener.failed': {error},
  'certificate.loaded': {listener: '0.0.0.0:5000', path: 'tls.crt', expiresAt: 1},
  'certificate.rejected': {listener: '0.0.0.0:5000', path: 'tls.key', problem: 'has no private key'},
  'certificate.expired': {listener: '0.0.0.0:5000', path: 'tls.crt', expiresAt: 1},
  'client.handshake-failed': {address: '10.0.0.1', reason: 'unsupported protocol'},
  'manifest.served': served,
  'blob.served': served,
  'referrers.served': served,
  'referrers.capability': {...served, host: 'r.test', capability: 'supported'},
  'referrers.tag-pending': {changes: 1},
  'referrers.tag-written': attached,
  'referrers.tag-failed': {...attached, ...upstream},
  'referrers.tag-unusable': {...attached, tag: 'latest', what: 'the subject itself'},
  'referrers.crowded': {...served, subject: digest, artifactType: 'a/b', atLeast: 50},
  'blob.damaged': {digest, origin: 'local', problem: 'damaged'},
  'manifest.damaged': {...served, origin: 'local'},
  'content.verified': {blobs: 1, manifests: 1, bytes: 1, bad: 0},
  'blob.missed': {registry: 'r.test', repository: parseName('team/app'), digest},
  'cache.evicted': {
    counts: {probation: 1, value: 1, unrooted: 1, damaged: 1, removed: 1},
    bytes: 1,
    youngest: 1,
  },
  'cache.crowded': {used: 1, limit: 1, kept: 1},
  'cache.broken-promise': {registry: 'r.test', repository: parseName('team/app'), digest},
  'store.checked': {
    blobs: 1,
    copies: 0,
    local: 0,
    deletions: 0,
    unrecorded: 0,
    spoolBytes: 0,
    isComplete: true,
  },
  'audit.failed': {lost: 1, error},
  'images.checked': {verifies: 1, pulls: 0, incomplete: 0},
  'fill.start': {digest, resumedAt: 0},
  'fill.resume': {digest, at: 1, reason: 'broken'},
  'fill.interrupted': {digest, at: 1},
  'fill.done': {digest, size: 1, ms: 1},
  'fill.failed': {digest, reason: 'broken'},
  'fill.mismatch': {digest, reason: 'broken'},
  'upstream.request': {host: 'r.test', label: 'r.test', method: 'GET', path: '/v2/', status: 200, ms: 1},
  'upstream.failed': upstream,
  'upstream.refused': upstream,
  'upstream.throttled': {...upstream, retryAfter: 1},
  'upstream.quota': {host: 'r.test', limit: 2, remaining: 1, window: undefined},
  'upstream.circuit': {host: 'r.test', state: 'open'},
  'upstream.credentials-refused': upstream,
  'issuer.failed': {issuer: 'gha', reason: 'refused', age: 1, left: 1},
  'garbage.collected': {pieces: 1, bytes: 1},
  'storage.migration': {state: 'begins', from: 1, to: 2, bytes: 1},
  'storage.read-only': {reason: 'its disk is full'},
  'storage.writable': undefined,
  'disk.failed': {part: 'metadata', code: 'EIO', message: 'the disk fails'},
  'background.failed': {task: 'a task', error},
};

const COUNTED: CountedRequests = {
  ...SAMPLES['request.end'],
  count: 1,
  durations: new Map([[1, 1]]),
  first: 0,
  last: 0,
  login: 'password',
  isServedHere: true,
};
const CACHE = {blobs: 1, spools: 1, quarantine: 1, database: 1, reserved: 1, limit: 1};

test('the metrics with their labels and help texts', async (t) => {
  const events = createEvents();
  const levels = {
    handOver: async () => {},
    openConnections: () => 0,
    requestsInFlight: () => 0,
    fillsInFlight: () => 0,
    storedBytes: async () => 0,
    freeBytes: async () => 0,
    damagedLocalBlobs: () => 0,
    isMetadataWritable: () => true,
    cache: async () => CACHE,
  };
  const metrics = createMetrics(events, {version: '1.2.3', ...levels});
  for (const event of Object.keys(SAMPLES) as LoggedEvent[]) events.emit(event, SAMPLES[event] as never);
  events.emit('requests.counted', [COUNTED]);
  const text = await metrics.text();
  const expected = [...text.matchAll(/^# HELP (backref_\w+) (.*)$/gm)].map(([, metric = '', help]) => {
    const [, labels = ''] = new RegExp(`^${metric}(?:_count)?\\{(.*)\\}`, 'm').exec(text) ?? [];
    const names = [...labels.matchAll(/(\w+)="/g)].map(([, label = '']) => quoted(label));
    return [quoted(metric), names.join(', ') || '–', help];
  });
  t.deepEqual(rows(section('## Metrics')), expected);
});

/** The events that only the command line logs, as its sources name them. */
async function eventsOfCli(): Promise<[event: string, level: string][]> {
  const folder = join(PROJECT, 'src/cli');
  const sources = await Promise.all(
    (await readdir(folder)).map((file) => readFile(join(folder, file), 'utf8')),
  );
  return sources.flatMap((source) =>
    [...source.matchAll(/level: '(\w+)',\s*event: '([\w.-]+)'/g)].map(
      ([, level = '', event = '']): [string, string] => [event, level],
    ),
  );
}

test('the log events with their levels', async (t) => {
  const listed = new Map(rows(section('## Log events')).map(([event = '', level = '']) => [event, level]));
  const ofServer = (Object.keys(LINES) as LoggedEvent[]).map((event): [string, string] => [
    event,
    LINES[event](SAMPLES[event] as never)[0],
  ]);
  const events = [...ofServer, ...(await eventsOfCli())];
  t.deepEqual([...listed.keys()].sort(), events.map(([event]) => quoted(event)).sort());
  for (const [event, level] of events)
    t.true(listed.get(quoted(event))?.split(', ').includes(level), `${event}: ${level}`);
});

/** No handler is called. */
const NO_VERBS = new Proxy({}, {get: () => ({})}) as Verbs;

test('the routes with their methods', (t) => {
  const expected = endpointsOf(NO_VERBS).map(({path, methods}) => [
    quoted(path.replace('{/}', '/').replace(/[*:](\w+)/g, (_, name: string) => name.toUpperCase())),
    Object.keys(methods).join(', '),
  ]);
  t.deepEqual(
    rows(section('## Routes')).map(([path, methods]) => [path, methods]),
    expected,
  );
});

test('the error codes with their status', (t) => {
  t.deepEqual(
    rows(section('## Error codes')).map(([code, status]) => [code, status]),
    Object.entries(ERRORS).map(([code, {status}]) => [quoted(code), String(status)]),
  );
});

/** The commands that do something, with their full names. */
const leaves = (command: Command, prefix = ''): [name: string, command: Command][] => {
  const full = `${prefix}${command.name()}`;
  return command.commands.length === 0
    ? [[full, command]]
    : command.commands.flatMap((inner) => leaves(inner, `${full} `));
};

test('the commands with their arguments and options', (t) => {
  const commands = leaves(createProgram(process, false, async () => {}));
  const titles = [...section('## Commands').matchAll(/^### `(.*)`$/gm)].map(([, title]) => title);
  t.deepEqual(
    titles,
    commands.map(([title]) => title),
  );
  for (const [title, command] of commands) {
    const text = section(`### \`${title}\``);
    t.is(text.trim().split('\n')[0], command.description(), title);
    const taken = command.registeredArguments.map((argument) => [
      quoted(`<${argument.name()}${argument.variadic ? '...' : ''}>`),
      argument.description,
    ]);
    const options = command.options
      .filter(({hidden}) => !hidden)
      .map(({flags, description}) => [quoted(flags), description]);
    t.deepEqual(rows(text), [...taken, ...options], title);
  }
});
