import test from 'ava';
import fc from 'fast-check';
import {jsonFault} from '../../src/oci/json.ts';

for (const text of [
  '{}',
  '{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}',
  '{"a":"{\\"b\\":1,\\"b\\":2}","b":",","c":":"}',
  '["a","a"]',
  '{"a":"a","b":["a","b"],"\\\\":"\\\\"}',
  '[[[[[]]]]]',
  '"text"',
]) {
  test(`has no fault: ${text}`, (t) => {
    t.is(jsonFault(text), undefined);
  });
}

for (const text of [
  '{"a":1,"a":2}',
  '{"a":1,"b":{},"a":2}',
  '{"a":[{"b":1,"c":[],"b":2}]}',
  '{"a":1,"\\u0061":2}',
  '{ "a" : "}" , "a" : "{" }',
]) {
  test(`has a key twice: ${text}`, (t) => {
    t.regex(jsonFault(text) ?? '', /twice/);
  });
}

test('nesting is limited, in arrays, objects and both', (t) => {
  t.is(jsonFault(`${'['.repeat(100)}${']'.repeat(100)}`), undefined);
  t.regex(jsonFault('['.repeat(101)) ?? '', /deeper than 100/);
  t.regex(jsonFault('{"a":'.repeat(101)) ?? '', /deeper than 100/);
});

test('serialized JSON has no fault', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.jsonValue({maxDepth: 5}), (value) => jsonFault(JSON.stringify(value)) === undefined),
    ),
  );
});

test('a key that is written twice into an object is always found', (t) => {
  const object = fc.dictionary(fc.string(), fc.jsonValue({maxDepth: 2}), {minKeys: 1});
  t.notThrows(() =>
    fc.assert(
      fc.property(object, fc.jsonValue(), (value, other) => {
        const key = Object.keys(value).at(-1) ?? '';
        const text = `${JSON.stringify(value).slice(0, -1)},${JSON.stringify(key)}:${JSON.stringify(other)}}`;
        return jsonFault(`[${text}]`) !== undefined;
      }),
    ),
  );
});

test('text that is not JSON is checked in bounded time', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.string({unit: fc.constantFrom(...'{}[]",:\\a1 ')}), (text) => {
        jsonFault(text);
      }),
    ),
  );
});
