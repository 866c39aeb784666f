import test from 'ava';
import fc from 'fast-check';
import {NO_ENTRIES, parseFallbackIndex, serializeFallbackIndex} from '../../src/oci/fallback-index.ts';

const parse = (text: string) => parseFallbackIndex(Buffer.from(text));
const write = (text: string, entries?: Iterable<string>): string => {
  const index = parse(text);
  return index ? serializeFallbackIndex(index, entries ?? index.entries.values()).toString() : 'none';
};

test('entries and everything around them are written again as they were', (t) => {
  const entry = '{ "size": 12345678901234567890, "digest" :"a", "x":{"manifests":[1,"]}"]} }';
  const text = ` {"z":[{"manifests":[1]}],\n"manifests": [ ${entry}],"annotations":{"\\"":"\\\\"}} `;
  t.is(write(text, [entry, '{"digest":"b"}']), text.replace(`[ ${entry}]`, `[${entry},{"digest":"b"}]`));
  t.is(write(text, []), text.replace(`[ ${entry}]`, '[]'));
  t.deepEqual([...(parse(text)?.entries ?? [])], [['a', entry]]);
});

test('the first of two entries with the same digest is kept', (t) => {
  t.is(
    write('{"manifests":[{"digest":"a","n":1},{"digest":"a","n":2}]}'),
    '{"manifests":[{"digest":"a","n":1}]}',
  );
});

test('the list that JSON parsers see counts when there are two', (t) => {
  const text = '{"manifests":[{"digest":"a"}],"\\u006danifests":[{"digest":"b"}]}';
  t.deepEqual([...(parse(text)?.entries.keys() ?? [])], ['b']);
  t.is(write(text, []), '{"manifests":[{"digest":"a"}],"\\u006danifests":[]}');
});

test('content that is not a list of digests is not an index', (t) => {
  const others = ['', '<html>', 'null', '1', '[]', '{}', '{"manifests":{}}', '{"manifests":"[]"}'];
  for (const text of [...others, '{"manifests":[1]}', '{"manifests":[{}]}', '{"manifests":[{"digest":1}]}']) {
    t.is(parse(text), undefined, text);
  }
  t.is(parseFallbackIndex(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])), undefined);
});

test('an index may be empty', (t) => {
  t.deepEqual(parse(serializeFallbackIndex(NO_ENTRIES, []).toString()), NO_ENTRIES);
});

test('null, which Go writes for an empty list, is read as an empty list and written as one', (t) => {
  const text = '{"schemaVersion":2,"manifests": null ,"annotations":{"a":"b"}}';
  t.is(parse(text)?.entries.size, 0);
  t.is(write(text, ['{"digest":"a"}']), text.replace('null', '[{"digest":"a"}]'));
});

test('whatever the index holds, it reads back as it was written', (t) => {
  const entry = fc.record({digest: fc.string(), rest: fc.jsonValue()});
  const body = fc.record({before: fc.jsonValue(), manifests: fc.array(entry), after: fc.jsonValue()});
  fc.assert(
    fc.property(body, fc.constantFrom(0, 1, '\t'), (value, space) => {
      const text = JSON.stringify(value, null, space);
      const index = parse(text);
      const kept = new Map(value.manifests.toReversed().map((item) => [item.digest, item]));
      t.is(index?.entries.size, kept.size);
      for (const [digest, source] of index?.entries ?? []) {
        t.deepEqual(JSON.parse(source), JSON.parse(JSON.stringify(kept.get(digest))));
      }
      const again = JSON.parse(write(text));
      t.deepEqual({...again, manifests: []}, {...JSON.parse(text), manifests: []});
    }),
  );
});
