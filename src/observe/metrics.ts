import {Counter, Gauge, Histogram, Registry} from 'prom-client';
import type {Events} from '../events.ts';
import {type Levels, processMetrics, registerLevels} from './levels.ts';

/** The figures of one server in the text format of Prometheus. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

/** Milliseconds to seconds, the unit that Prometheus asks for. */
const seconds = (ms: number): number => ms / 1000;
/** Of upstreams' headers; those of requests, which include downloads, go on to ten minutes. */
const LATENCIES = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];
const REQUEST_LATENCIES = [...LATENCIES, 600];

/** Counts what one server tells. Labels are names from the configuration and the code, never a client's text. */
export function createMetrics(events: Events, levels: Levels): Metrics {
  const registry = new Registry();
  registerLevels(registry, levels);
  const ofProcess = processMetrics();
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Counter({name: `backref_${name}`, help, labelNames, registers});

  const requests = counter('requests_total', 'Requests answered.', ['method', 'status', 'registry']);
  const bytes = counter('response_bytes_total', 'Bytes sent to clients, headers included.', ['registry']);
  const received = counter('request_bytes_total', 'Bytes of bodies that requests brought.', ['registry']);
  const served = counter('served_total', 'Manifests, blobs and lists of referrers served.', [
    'kind',
    'registry',
    'outcome',
  ]);
  const fills = counter('fills_total', 'Downloads that ended.', ['result']);
  const filled = counter('fill_bytes_total', 'Bytes of blobs that were stored.', []);
  const resumed = counter('fill_resumptions_total', 'Downloads resumed after a broken connection.', []);
  const asked = counter('upstream_requests_total', 'Requests to upstreams.', ['host', 'method', 'status']);
  const failures = counter('upstream_failures_total', 'Questions that an upstream did not decide.', [
    'host',
    'kind',
  ]);
  const faults = counter('faults_total', 'Errors that nothing handled, each of them a defect.', ['origin']);
  const unaccepted = counter(
    'listener_failures_total',
    'Seconds in which connections could not be accepted.',
    [],
  );
  const stalled = counter(
    'stalled_clients_total',
    'Connections cut because their clients took none of the bytes that waited for them.',
    [],
  );
  const background = counter('background_failures_total', 'Failures of work that no request waits for.', []);
  const collected = counter('garbage_bytes_total', 'Bytes of content that nothing referred to.', []);
  const latency = new Histogram({
    name: 'backref_upstream_seconds',
    help: "Time to an upstream's response headers.",
    labelNames: ['host'] as const,
    buckets: LATENCIES,
    registers,
  });
  const quota = new Gauge({
    name: 'backref_upstream_quota_remaining',
    help: 'Pulls left of the rate limit, as the upstream last told it.',
    labelNames: ['host'] as const,
    registers,
  });
  const circuit = new Gauge({
    name: 'backref_upstream_circuit_open',
    help: '1 while an upstream that fails is left alone.',
    labelNames: ['host'] as const,
    registers,
  });
  const capability = counter(
    'referrers_capability_total',
    "Times that an upstream's Referrers API was found supported, unsupported or doubtful.",
    ['host', 'capability'],
  );
  const owed = new Gauge({
    name: 'backref_referrers_tag_owed',
    help: "Changes of upstreams' fallback tags that are owed.",
    registers,
  });
  const written = counter(
    'referrers_tag_writes_total',
    "Times that an upstream's fallback tag was written.",
    ['registry'],
  );
  const unusable = counter(
    'referrers_tag_unusable_total',
    'Times that a fallback tag was found to be no list of referrers.',
    ['registry'],
  );

  const crowded = counter('referrers_crowded_total', 'Subjects found to have many referrers of one type.', [
    'registry',
  ]);

  const durations = new Histogram({
    name: 'backref_request_seconds',
    help: 'Time from the headers of a request to the end of its answer.',
    labelNames: ['kind', 'outcome'] as const,
    buckets: REQUEST_LATENCIES,
    registers,
  });
  const inFlight = new Gauge({
    name: 'backref_requests_in_flight',
    help: 'Requests whose answer has not ended, this one included.',
    registers,
  });
  const tagFailures = counter(
    'referrers_tag_failures_total',
    "Times that an upstream's fallback tag could not be written.",
    ['registry'],
  );

  events.on('request.start', () => inFlight.inc());
  events.on('request.end', ({method, status, registry: name = '', ...request}) => {
    const {kind, outcome, ms, received: brought, bytes: length} = request;
    inFlight.dec();
    durations.observe({kind, outcome}, seconds(ms));
    requests.inc({method: METHODS.has(method) ? method : 'other', status, registry: name});
    bytes.inc({registry: name}, length);
    received.inc({registry: name}, brought);
  });
  events.on('manifest.served', ({registry: name, outcome}) =>
    served.inc({kind: 'manifest', registry: name, outcome}),
  );
  events.on('blob.served', ({registry: name, outcome}) =>
    served.inc({kind: 'blob', registry: name, outcome}),
  );
  events.on('referrers.served', ({registry: name, outcome}) =>
    served.inc({kind: 'referrers', registry: name, outcome}),
  );
  events.on('fill.done', ({size}) => {
    fills.inc({result: 'stored'});
    filled.inc(size);
  });
  events.on('fill.failed', () => fills.inc({result: 'failed'}));
  events.on('fill.mismatch', () => fills.inc({result: 'mismatch'}));
  events.on('fill.resume', () => resumed.inc());
  events.on('upstream.request', ({label: host, method, status, ms}) => {
    asked.inc({host, method, status});
    latency.observe({host}, seconds(ms));
  });
  events.on('upstream.failed', ({host, kind}) => failures.inc({host, kind}));
  events.on('upstream.quota', ({host, remaining}) => quota.set({host}, remaining));
  events.on('upstream.circuit', ({host, repository, state}) => {
    if (repository === undefined) circuit.set({host}, state === 'closed' ? 0 : 1);
  });
  events.on('referrers.capability', ({host, capability: found}) => capability.inc({host, capability: found}));
  events.on('referrers.tag-owed', ({changes}) => owed.set(changes));
  events.on('referrers.tag-written', ({registry: name}) => written.inc({registry: name}));
  events.on('referrers.tag-failed', ({registry: name}) => tagFailures.inc({registry: name}));
  events.on('referrers.tag-unusable', ({registry: name}) => unusable.inc({registry: name}));
  events.on('referrers.crowded', ({registry: name}) => crowded.inc({registry: name}));
  events.on('garbage.collected', ({bytes: length}) => collected.inc(length));
  events.on('server.fault', ({origin}) => faults.inc({origin}));
  events.on('client.stalled', () => stalled.inc());
  events.on('listener.failed', () => unaccepted.inc());
  events.on('background.failed', () => background.inc());
  return {
    contentType: registry.contentType,
    text: async () => (await Promise.all([registry.metrics(), ofProcess.metrics()])).join('\n'),
  };
}

/** Further methods are a client's own text. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
