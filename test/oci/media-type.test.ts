import test from 'ava';
import fc from 'fast-check';
import {bareMediaType, MANIFEST_ACCEPT, OCI_INDEX} from '../../src/oci/media-type.ts';

for (const [header, bare] of [
  [undefined, undefined],
  ['', undefined],
  ['  ', undefined],
  ['; charset=utf-8', undefined],
  [OCI_INDEX, OCI_INDEX],
  [`${OCI_INDEX}; charset=utf-8`, OCI_INDEX],
  [`${OCI_INDEX};charset=utf-8;q=1`, OCI_INDEX],
  [' Application/JSON ', 'application/json'],
] as const) {
  test(`the content type ${JSON.stringify(header)} is ${JSON.stringify(bare)}`, (t) => {
    t.is(bareMediaType(header), bare);
  });
}

test('stripping a content type twice changes nothing more', (t) => {
  fc.assert(
    fc.property(fc.string({unit: 'binary'}), (header) => {
      const bare = bareMediaType(header);
      return bare === undefined || (bare !== '' && !bare.includes(';') && bareMediaType(bare) === bare);
    }),
  );
  t.pass();
});

test('upstreams are asked for every kind of manifest, lists before single ones, anything else last', (t) => {
  t.is(
    MANIFEST_ACCEPT,
    'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.artifact.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1',
  );
});
