import {Counter, Gauge, Histogram, Registry} from 'prom-client';
import type {Events, Outcome} from '../events.ts';
import {type GaugeSources, processMetrics, registerGauges} from './gauges.ts';

/** The metrics of one server in the text format of Prometheus. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

/**
 * Counts the events of one server. Labels are names from the configuration and the code, never a client's text, so
 * their number is bounded.
 */
export function createMetrics(events: Events, sources: GaugeSources): Metrics {
  const registry = new Registry();
  registerGauges(registry, sources);
  const instruments = createInstruments(registry);
  countRequests(events, instruments);
  countServed(events, instruments);
  countFills(events, instruments);
  countEvictions(events, instruments);
  countUpstreams(events, instruments);
  countReferrers(events, instruments);
  countFaults(events, instruments);
  countBackground(events, instruments);
  countLogins(events, instruments);
  const ofProcess = processMetrics();
  return {
    contentType: registry.contentType,
    text: async () => (await Promise.all([registry.metrics(), ofProcess.metrics()])).join('\n'),
  };
}

type Instruments = ReturnType<typeof createInstruments>;

/** Makes the instruments of one registry; `backref_` goes before each name. */
function createInstruments(registry: Registry) {
  const registers = [registry];
  return {
    counter: <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
      new Counter({name: `backref_${name}`, help, labelNames, registers}),
    gauge: <Label extends string>(name: string, help: string, labelNames: readonly Label[] = []) =>
      new Gauge({name: `backref_${name}`, help, labelNames, registers}),
    histogram: <Label extends string>(
      name: string,
      help: string,
      labelNames: readonly Label[],
      buckets: number[],
    ) => new Histogram({name: `backref_${name}`, help, labelNames, buckets, registers}),
  };
}

/** Prometheus measures time in seconds. */
const seconds = (ms: number): number => ms / 1000;

/** Of an upstream's response headers, in seconds. A request may include a download, so its buckets reach ten minutes. */
const UPSTREAM_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];
const REQUEST_BUCKETS = [...UPSTREAM_BUCKETS, 600];

/** Any other method is a client's own text. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

function countRequests(events: Events, {counter, gauge, histogram}: Instruments): void {
  const requests = counter('requests_total', 'Requests answered.', ['method', 'status', 'registry']);
  const sent = counter('response_bytes_total', 'Bytes sent to clients, headers included.', ['registry']);
  const received = counter('request_bytes_total', 'Bytes received in request bodies.', ['registry']);
  const durations = histogram(
    'request_seconds',
    "Time from a request's headers to the end of its response.",
    ['kind', 'outcome'],
    REQUEST_BUCKETS,
  );
  const inFlight = gauge(
    'requests_in_flight',
    'Requests whose response has not ended; the one that reads this is one of them.',
  );
  const stalled = counter(
    'stalled_clients_total',
    'Connections closed because the client read nothing for listen.sendTimeout.',
  );

  const refused = counter(
    'refused_total',
    'Requests and connections refused, by the setting that allows no more.',
    ['limit'],
  );

  events.on('request.start', () => inFlight.inc());
  events.on('request.end', ({method, status, registry = '', kind, outcome, ms, ...bytes}) => {
    inFlight.dec();
    durations.observe({kind, outcome}, seconds(ms));
    requests.inc({method: METHODS.has(method) ? method : 'other', status, registry});
    sent.inc({registry}, bytes.bytes);
    received.inc({registry}, bytes.received);
  });
  const denied = counter(
    'access_denied_total',
    'What rules denied to callers, or would deny if they were enforced.',
    ['mode'],
  );
  events.on('client.stalled', () => stalled.inc());
  events.on('limit.exceeded', ({limit}) => refused.inc({limit}));
  events.on('access.denied', ({mode}) => denied.inc({mode}));
}

function countLogins(events: Events, {counter}: Instruments): void {
  const logins = counter(
    'logins_total',
    'Credentials checked, apart from tokens issued here that are valid.',
    ['method', 'outcome'],
  );
  events.on('login.accepted', ({method}) => logins.inc({method, outcome: 'accepted'}));
  events.on('login.refused', ({method}) => logins.inc({method, outcome: 'refused'}));
}

function countServed(events: Events, {counter}: Instruments): void {
  const served = counter(
    'served_total',
    'Manifests, blobs and lists of referrers served, by how the cache was used.',
    ['kind', 'registry', 'outcome'],
  );
  const countAs =
    (kind: string) =>
    ({registry, outcome}: {registry: string; outcome: Outcome}) =>
      served.inc({kind, registry, outcome});
  events.on('manifest.served', countAs('manifest'));
  events.on('blob.served', countAs('blob'));
  events.on('referrers.served', countAs('referrers'));
}

function countFills(events: Events, {counter}: Instruments): void {
  const ended = counter('fills_total', 'Downloads of blobs that ended.', ['result']);
  const bytes = counter('fill_bytes_total', 'Bytes of downloaded blobs that were stored.');
  const resumed = counter('fill_resumptions_total', 'Downloads resumed after a broken connection.');

  events.on('fill.done', ({size}) => {
    ended.inc({result: 'stored'});
    bytes.inc(size);
  });
  events.on('fill.failed', () => ended.inc({result: 'failed'}));
  events.on('fill.mismatch', () => ended.inc({result: 'mismatch'}));
  events.on('fill.resume', () => resumed.inc());
}

function countEvictions(events: Events, {counter, gauge}: Instruments): void {
  const evictions = counter('evictions_total', 'Images, and blobs of no image, that were evicted.', [
    'reason',
  ]);
  const bytes = counter('evicted_bytes_total', 'Bytes of evicted blobs.');
  const youngest = gauge(
    'youngest_evicted_age_seconds',
    'Time since the last use of the most recently used image that the last eviction took.',
  );
  const pulls = counter(
    'pulls_total',
    'Requests for manifests and blobs that were served, by whether the upstream was asked for them.',
    ['upstream'],
  );
  const broken = counter(
    'broken_promises_total',
    'Blobs that were missed because they were evicted before a manifest that names them; each is a defect.',
  );

  const countPull = ({outcome}: {outcome: Outcome}) =>
    pulls.inc({upstream: outcome === 'hit' ? 'none' : 'asked'});
  events.on('manifest.served', countPull);
  events.on('blob.served', countPull);
  events.on('cache.evicted', ({counts, bytes: freed, youngest: age}) => {
    for (const [reason, count] of Object.entries(counts)) evictions.inc({reason}, count);
    bytes.inc(freed);
    if (age !== undefined) youngest.set(seconds(age));
  });
  events.on('cache.broken-promise', () => broken.inc());
}

function countUpstreams(events: Events, {counter, gauge, histogram}: Instruments): void {
  const requests = counter('upstream_requests_total', 'Requests to upstreams.', ['host', 'method', 'status']);
  const failures = counter('upstream_failures_total', 'Calls to upstreams that got no usable answer.', [
    'host',
    'kind',
  ]);
  const latency = histogram(
    'upstream_seconds',
    "Time until an upstream's response headers arrive.",
    ['host'],
    UPSTREAM_BUCKETS,
  );
  const quota = gauge(
    'upstream_quota_remaining',
    'Pulls left in the rate limit, as the upstream last reported it.',
    ['host'],
  );
  const circuit = gauge('upstream_circuit_open', "1 while an upstream's circuit breaker is open.", ['host']);

  events.on('upstream.request', ({label: host, method, status, ms}) => {
    requests.inc({host, method, status});
    latency.observe({host}, seconds(ms));
  });
  events.on('upstream.failed', ({host, kind}) => failures.inc({host, kind}));
  events.on('upstream.quota', ({host, remaining}) => quota.set({host}, remaining));
  events.on('upstream.circuit', ({host, repository, state}) => {
    if (repository === undefined) circuit.set({host}, state === 'closed' ? 0 : 1);
  });
}

function countReferrers(events: Events, {counter, gauge}: Instruments): void {
  const capability = counter(
    'referrers_capability_total',
    "Changes in what is known of an upstream's Referrers API.",
    ['host', 'capability'],
  );
  const crowded = counter('referrers_crowded_total', 'Subjects found to have many referrers of one type.', [
    'registry',
  ]);
  const pending = gauge(
    'referrers_tag_pending',
    "Changes that are not yet written to upstreams' fallback tags.",
  );
  const written = counter('referrers_tag_writes_total', "Writes of upstreams' fallback tags.", ['registry']);
  const failed = counter(
    'referrers_tag_failures_total',
    "Failed writes of upstreams' fallback tags, which are tried again.",
    ['registry'],
  );
  const unusable = counter(
    'referrers_tag_unusable_total',
    'Times that a fallback tag was found not to be a list of referrers.',
    ['registry'],
  );

  events.on('referrers.capability', ({host, capability: found}) => capability.inc({host, capability: found}));
  events.on('referrers.crowded', ({registry}) => crowded.inc({registry}));
  events.on('referrers.tag-pending', ({changes}) => pending.set(changes));
  events.on('referrers.tag-written', ({registry}) => written.inc({registry}));
  events.on('referrers.tag-failed', ({registry}) => failed.inc({registry}));
  events.on('referrers.tag-unusable', ({registry}) => unusable.inc({registry}));
}

function countFaults(events: Events, {counter, gauge}: Instruments): void {
  const faults = counter('faults_total', 'Errors that nothing handled; each is a defect.', ['origin']);
  const listener = counter('listener_failures_total', 'Seconds in which connections could not be accepted.');

  const disks = counter('disk_failures_total', 'Reads and writes that a disk failed.', ['part']);

  events.on('disk.failed', ({part}) => disks.inc({part}));

  const expiry = gauge(
    'certificate_expiry_timestamp_seconds',
    'When the certificate that a listener uses expires.',
    ['listener'],
  );
  const rejected = counter(
    'certificates_rejected_total',
    'Times that the files of a key pair had changed and could not be used.',
    ['listener'],
  );
  const handshakes = counter('handshake_failures_total', 'Connections that ended in their TLS handshake.');

  events.on('certificate.loaded', ({listener: name, expiresAt}) =>
    expiry.set({listener: name}, seconds(expiresAt)),
  );
  events.on('certificate.rejected', ({listener: name}) => rejected.inc({listener: name}));
  events.on('client.handshake-failed', () => handshakes.inc());
  events.on('server.fault', ({origin}) => faults.inc({origin}));
  events.on('listener.failed', () => listener.inc());
}

function countBackground(events: Events, {counter, gauge}: Instruments): void {
  const failures = counter('background_failures_total', 'Failures of background work.');
  const collected = counter('garbage_bytes_total', 'Bytes of garbage collected.');

  const verified = counter('verified_bytes_total', 'Bytes of stored blobs that were hashed again.');
  const damaged = counter(
    'damaged_total',
    'Stored blobs and manifests found to be missing or damaged, by whether they are copies or were pushed here.',
    ['kind', 'origin'],
  );

  const ready = gauge(
    'ready_images',
    'Pinned images by what they would do with their upstreams gone: pull and verify, only pull, or neither.',
    ['state'],
  );

  const unaudited = counter('audit_lines_lost_total', 'Lines of the audit log that could not be written.');
  const issuers = counter('issuer_failures_total', 'Failures to read the keys of an issuer of tokens.', [
    'issuer',
  ]);

  events.on('issuer.failed', ({issuer}) => issuers.inc({issuer}));
  events.on('images.checked', (counts) => {
    for (const [state, images] of Object.entries(counts)) ready.set({state}, images);
  });
  events.on('audit.failed', ({lost}) => unaudited.inc(lost));
  events.on('background.failed', () => failures.inc());
  events.on('content.verified', ({bytes}) => verified.inc(bytes));
  events.on('blob.damaged', ({origin}) => damaged.inc({kind: 'blob', origin}));
  events.on('manifest.damaged', ({origin}) => damaged.inc({kind: 'manifest', origin}));
  events.on('garbage.collected', ({bytes}) => collected.inc(bytes));
}
