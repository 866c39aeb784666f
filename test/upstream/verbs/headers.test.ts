import test from 'ava';
import fc from 'fast-check';
import {tokenLife} from '../../../src/upstream/auth/token.ts';
import {parseQuota} from '../../../src/upstream/transport/rate-limits.ts';
import {parseContentRange} from '../../../src/upstream/verbs/blobs.ts';
import {nextLink, UnreadableLink} from '../../../src/upstream/verbs/pages.ts';

test('Content-Range is parsed into the first and last byte and the whole size', (t) => {
  t.deepEqual(parseContentRange('bytes 5-9/100'), {start: 5, end: 9, size: 100});
  t.deepEqual(parseContentRange('bytes 0-0/*'), {start: 0, end: 0, size: undefined});
  t.deepEqual(parseContentRange('bytes */0'), {start: undefined, end: undefined, size: 0});
});

test('a Content-Range that contradicts itself is ignored', (t) => {
  for (const field of [
    undefined,
    '',
    'bytes 9-5/100',
    'bytes 0-100/100',
    'items 0-1/2',
    'bytes 0-1',
    'bytes 0-1/2, 3-4/5',
  ]) {
    t.is(parseContentRange(field), undefined, field);
  }
});

test('the next page is the link whose relations include next', (t) => {
  t.is(nextLink('</v2/a/tags/list?n=2&last=b>; rel="next"'), '/v2/a/tags/list?n=2&last=b');
  t.is(nextLink('</first>; rel=first, </next,page>; title="a, \\"b\\""; rel="prefetch next"'), '/next,page');
  t.is(nextLink('<?last=x>;rel=NEXT'), '?last=x');
  t.is(nextLink('</x> ; title="a" , </y>\t; rel="prefetch\tnext"'), '/y');
  for (const field of [undefined, '', '</x>', '</x>; rel="prev"']) t.is(nextLink(field), undefined, field);
});

test('an unreadable Link is not the end of the list', (t) => {
  for (const field of [
    '/x; rel=next',
    '</x; rel=next',
    '</x>; title*=; rel=next',
    '</x>; rel=prev; crossorigin, </y>; rel=next',
    '</x>; title="a, </y>; rel=next',
  ]) {
    t.throws(() => nextLink(field), {instanceOf: UnreadableLink}, field);
  }
});

test('any Link is parsed or refused, and nothing else is thrown', (t) => {
  const parts = fc.constantFrom('<', '>', ';', 'rel', '=', '"', 'next', ' ', ',', '\\', 'a');
  fc.assert(
    fc.property(fc.string({unit: parts, maxLength: 400}), (field) => {
      try {
        t.true(['string', 'undefined'].includes(typeof nextLink(field)));
      } catch (error) {
        t.true(error instanceof UnreadableLink, field);
      }
    }),
  );
});

test('the rate limit is parsed with and without its window', (t) => {
  t.deepEqual(parseQuota({'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600'}), {
    limit: 100,
    remaining: 76,
    window: 21_600_000,
  });
  t.deepEqual(parseQuota({'ratelimit-limit': '10', 'ratelimit-remaining': '0'}), {
    limit: 10,
    remaining: 0,
    window: undefined,
  });
  t.is(parseQuota({'ratelimit-limit': '10'}), undefined);
  t.is(parseQuota({'ratelimit-limit': 'many', 'ratelimit-remaining': '1'}), undefined);
});

test('a token lives 60 s unless the response says otherwise, and is renewed a little earlier', (t) => {
  const now = Date.parse('2030-01-01T00:01:00Z');
  t.is(tokenLife({}, now), 54_000);
  t.is(tokenLife({expires_in: 300}, now), 270_000);
  t.is(tokenLife({expires_in: 43_200}, now), 43_170_000);
  t.is(tokenLife({expires_in: 300, issued_at: '2030-01-01T00:00:00Z'}, now), 210_000);
  t.is(tokenLife({issued_at: '2030-01-01T00:00:30Z'}, now), 24_000);
  t.is(tokenLife({expires_in: 300, issued_at: '2030-01-01T00:09:00Z'}, now), 270_000);
  t.is(tokenLife({expires_in: 300, issued_at: 'yesterday'}, now), 270_000);
  t.is(tokenLife({issued_at: '2020-01-01T00:00:00Z'}, now), 0);
});
