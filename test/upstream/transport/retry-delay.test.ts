import test from 'ava';
import fc from 'fast-check';
import {parseRetryAfter} from '../../../src/upstream/transport/reply.ts';
import {retryDelay} from '../../../src/upstream/transport/retry.ts';

const first = {
  method: 'GET' as const,
  attempt: 1,
  status: undefined,
  retryAfter: undefined,
  left: 5000,
  jitter: 1,
};

test('delays double from attempt to attempt, minus a jitter of up to a half', (t) => {
  t.is(retryDelay(first), 100);
  t.is(retryDelay({...first, attempt: 2}), 200);
  t.is(retryDelay({...first, attempt: 3}), 400);
  t.is(retryDelay({...first, attempt: 3, jitter: 0}), 200);
});

test('there are at most four attempts', (t) => {
  t.is(retryDelay({...first, attempt: 4}), undefined);
});

test('gateway errors are retried, other statuses are not', (t) => {
  for (const status of [502, 503, 504]) t.is(retryDelay({...first, status}), 100, String(status));
  for (const status of [200, 206, 307, 400, 401, 403, 404, 416, 501, 508]) {
    t.is(retryDelay({...first, status}), undefined, String(status));
  }
});

test('a 500 is retried for a read, and not for a write', (t) => {
  for (const method of ['GET', 'HEAD'] as const)
    t.is(retryDelay({...first, method, status: 500}), 100, method);
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'] as const)
    t.is(retryDelay({...first, method, status: 500}), undefined, method);
});

test('a 429 is retried only when it has a Retry-After', (t) => {
  t.is(retryDelay({...first, status: 429}), undefined);
  t.is(retryDelay({...first, status: 429, retryAfter: 1000}), 1000);
});

test('Retry-After beyond the budget ends the attempts', (t) => {
  t.is(retryDelay({...first, status: 503, retryAfter: 4999}), 4999);
  t.is(retryDelay({...first, status: 503, retryAfter: 5000}), undefined);
});

test('a delay never exceeds the budget', (t) => {
  fc.assert(
    fc.property(
      fc.record({
        method: fc.constantFrom('GET' as const, 'PUT' as const),
        attempt: fc.integer({min: 1, max: 6}),
        status: fc.option(fc.constantFrom(200, 404, 429, 500, 502, 503, 504), {nil: undefined}),
        retryAfter: fc.option(fc.nat(20_000), {nil: undefined}),
        left: fc.nat(10_000),
        jitter: fc.double({min: 0, max: 1, noNaN: true}),
      }),
      (attempt) => {
        const delay = retryDelay(attempt);
        t.true(delay === undefined || (delay < attempt.left && delay >= (attempt.retryAfter ?? 0)));
      },
    ),
  );
});

test('Retry-After is parsed as seconds or as a date', (t) => {
  const now = Date.parse('Wed, 21 Oct 2026 07:28:00 GMT');
  t.is(parseRetryAfter('120', now), 120_000);
  t.is(parseRetryAfter(' 0 ', now), 0);
  t.is(parseRetryAfter('Wed, 21 Oct 2026 07:28:30 GMT', now), 30_000);
  t.is(parseRetryAfter('Wed, 21 Oct 2026 07:27:00 GMT', now), 0);
  for (const field of [undefined, '', '-1', '1.5', 'soon'])
    t.is(parseRetryAfter(field, now), undefined, field);
});
