import {Registry} from 'prom-client';
import type {Events, Outcome} from '../events.ts';
import {type GaugeSources, processMetrics, registerGauges} from './gauges.ts';
import {createInstruments, type Instruments, seconds, UPSTREAM_BUCKETS} from './instruments.ts';
import {countLogins, countRequests} from './request-metrics.ts';

/** The metrics of one server in the text format of Prometheus. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

export interface MetricsSources extends GaugeSources {
  /** Reports the requests that were counted and not yet reported. */
  handOver(): Promise<void>;
}

/**
 * Counts the events of one server. Labels are names from the configuration and the code, never a client's text, so
 * their number is bounded.
 */
export function createMetrics(events: Events, {handOver, ...sources}: MetricsSources): Metrics {
  const registry = new Registry();
  registerGauges(registry, sources);
  const instruments = createInstruments(registry);
  const durations = countRequests(events, instruments);
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
    async text() {
      await handOver();
      const [counted, process] = await Promise.all([registry.metrics(), ofProcess.metrics()]);
      return [counted, durations.text(), process].join('\n');
    },
  };
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
  events.on('requests.counted', (all) => {
    for (const {kind, registry = '', isServedHere, count} of all)
      if (isServedHere) served.inc({kind, registry, outcome: 'hit'}, count);
  });
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
  events.on('requests.counted', (all) => {
    for (const {kind, isServedHere, count} of all)
      if (isServedHere && (kind === 'manifest' || kind === 'blob')) pulls.inc({upstream: 'none'}, count);
  });
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
