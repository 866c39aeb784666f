import test from 'ava';
import {createEmptyUpstream} from '../../src/upstream/empty.ts';
import {caller, digest, latest, repository} from '../support/upstream.ts';

test('the upstream of a hosted registry answers everything with an authoritative absence', async (t) => {
  const upstream = createEmptyUpstream('apps.local');
  t.is(upstream.host, 'apps.local');
  t.is(await upstream.headManifest(repository, latest, caller), undefined);
  t.is(await upstream.getManifest(repository, latest, caller), undefined);
  t.is(await upstream.headBlob(repository, digest, caller), undefined);
  t.is(await upstream.getBlob(repository, digest, caller), undefined);
  t.is(await upstream.listTags(repository, caller), undefined);
  t.deepEqual(await upstream.listReferrers(repository, digest, caller), {descriptors: [], skipped: []});
  upstream.close();
});
