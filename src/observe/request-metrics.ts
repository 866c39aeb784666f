import type {CountedRequests, Events} from '../events.ts';
import {createCountedHistogram} from './histogram.ts';
import {type Instruments, UPSTREAM_BUCKETS} from './instruments.ts';

const REQUEST_BUCKETS = [...UPSTREAM_BUCKETS, 600];

/** Any other method is a client's own text. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** @returns how long requests took */
export function countRequests(events: Events, {counter}: Instruments) {
  const requests = counter('requests_total', 'Requests answered.', ['method', 'status', 'registry']);
  const sent = counter('response_bytes_total', 'Bytes sent to clients, headers included.', ['registry']);
  const received = counter('request_bytes_total', 'Bytes received in request bodies.', ['registry']);
  const durations = createCountedHistogram({
    name: 'backref_request_seconds',
    help: "Time from a request's headers to the end of its response.",
    labelNames: ['kind', 'outcome'],
    buckets: REQUEST_BUCKETS,
  });
  const stalled = counter(
    'stalled_clients_total',
    'Connections closed because the client read nothing for listen.sendTimeout.',
  );

  const refused = counter(
    'refused_total',
    'Requests and connections refused, by the setting that allows no more.',
    ['limit'],
  );

  const add = ({method, status, registry = '', kind, outcome, ...counted}: CountedRequests): void => {
    for (const [ms, count] of counted.durations) durations.add({kind, outcome}, ms, count);
    requests.inc({method: METHODS.has(method) ? method : 'other', status, registry}, counted.count);
    sent.inc({registry}, counted.bytes);
    received.inc({registry}, counted.received);
  };
  events.on('requests.counted', (all) => all.forEach(add));
  const denied = counter(
    'access_denied_total',
    'What rules denied to callers, or would deny if they were enforced.',
    ['mode'],
  );
  events.on('client.stalled', () => stalled.inc());
  events.on('limit.exceeded', ({limit}) => refused.inc({limit}));
  events.on('access.denied', ({mode}) => denied.inc({mode}));
  return durations;
}

export function countLogins(events: Events, {counter}: Instruments): void {
  const logins = counter(
    'logins_total',
    'Credentials checked, apart from tokens issued here that are valid.',
    ['method', 'outcome'],
  );
  events.on('login.accepted', ({method}) => logins.inc({method, outcome: 'accepted'}));
  events.on('requests.counted', (all) => {
    for (const {login: method, count} of all)
      if (method !== undefined) logins.inc({method, outcome: 'accepted'}, count);
  });
  events.on('login.refused', ({method}) => logins.inc({method, outcome: 'refused'}));
}
