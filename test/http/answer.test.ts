import test from 'ava';
import fc from 'fast-check';
import {type Item, parseList} from 'structured-headers';
import {cacheStatus, warning} from '../../src/http/answer.ts';
import type {CacheReport} from '../../src/registry/freshness.ts';

const rows: [report: CacheReport, field: string][] = [
  [{how: 'hit'}, 'backref;hit'],
  [{how: 'hit', ttl: 5, age: 55}, 'backref;hit;ttl=5'],
  [{how: 'uri-miss'}, 'backref;fwd=uri-miss'],
  [{how: 'uri-miss', stored: true, collapsed: false}, 'backref;fwd=uri-miss;stored'],
  [{how: 'uri-miss', stored: true, collapsed: true}, 'backref;fwd=uri-miss;stored;collapsed'],
  [{how: 'stale', ttl: -7, detail: 'timeout'}, 'backref;fwd=stale;ttl=-7;detail=timeout'],
  [{how: 'request', ttl: 0}, 'backref;fwd=request;ttl=0'],
];

for (const [report, field] of rows) {
  test(`${JSON.stringify(report)} is Cache-Status ${field}`, (t) => {
    t.is(cacheStatus(report), field);
  });
}

test('any report is one list member of RFC 9211, with hit or fwd and never both', (t) => {
  const report = fc.record(
    {
      how: fc.constantFrom('hit' as const, 'uri-miss' as const, 'stale' as const, 'request' as const),
      ttl: fc.integer(),
      age: fc.nat(),
      stored: fc.boolean(),
      collapsed: fc.boolean(),
      detail: fc.constantFrom('unchanged', 'deleted-upstream', 'timeout'),
    },
    {requiredKeys: ['how']},
  );
  fc.assert(
    fc.property(report, (given) => {
      const members = parseList(cacheStatus(given));
      const [name, parameters = new Map()] = members[0] as Item;
      return (
        members.length === 1 &&
        String(name) === 'backref' &&
        parameters.has('hit') !== parameters.has('fwd') &&
        parameters.get('ttl') === given.ttl &&
        parameters.get('detail')?.toString() === given.detail
      );
    }),
  );
  t.pass();
});

test('a warning is 299, no agent, and a quoted string', (t) => {
  t.is(warning('served stale'), '299 - "served stale"');
  t.is(warning('say "no" \\ twice'), String.raw`299 - "say \"no\" \\ twice"`);
});

test('characters that a header must not contain are replaced', (t) => {
  t.is(warning('a\r\nSet-Cookie: b\0é'), '299 - "a??Set-Cookie: b??"');
});

test('a warning of at most 4,096 bytes stays well-formed', (t) => {
  t.is(warning('x'.repeat(10_000)).length, 4096);
  for (let front = 0; front < 4; front++) {
    const text = warning('x'.repeat(front) + '\\'.repeat(5000));
    t.true(text.length <= 4096);
    t.regex(text, /^299 - "(?:[^"\\]|\\.)*"$/);
  }
});

test('any text makes one well-formed warning that fits, and short ones can be read back', (t) => {
  const text = fc.oneof(
    fc.string({unit: 'binary', maxLength: 200}),
    fc
      .array(fc.constantFrom('\\', '"', 'a', 'é', '\n'), {maxLength: 6000, size: 'max'})
      .map((all) => all.join('')),
  );
  fc.assert(
    fc.property(text, (given) => {
      const field = warning(given);
      const quoted = /^299 - "((?:[\t !#-[\]-~]|\\[\t -~])*)"$/.exec(field)?.[1];
      if (quoted === undefined || field.length > 4096) return false;
      const read = quoted.replaceAll(/\\(.)/g, '$1');
      const printable = given.replaceAll(/[^\t\x20-\x7e]/g, '?');
      return given.length < 2000 ? read === printable : printable.startsWith(read);
    }),
  );
  t.pass();
});
