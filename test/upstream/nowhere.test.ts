import test from 'ava';
import {createNowhere} from '../../src/upstream/nowhere.ts';
import {caller, digest, latest, repository} from '../support/upstream.ts';

test('the upstream of a hosted registry has nothing, and says so with authority', async (t) => {
  const nowhere = createNowhere('apps.local');
  t.is(nowhere.host, 'apps.local');
  t.is(await nowhere.headManifest(repository, latest, caller), undefined);
  t.is(await nowhere.getManifest(repository, latest, caller), undefined);
  t.is(await nowhere.headBlob(repository, digest, caller), undefined);
  t.is(await nowhere.getBlob(repository, digest, caller), undefined);
  t.is(await nowhere.listTags(repository, caller), undefined);
  t.deepEqual(await nowhere.listReferrers(repository, digest, caller), {descriptors: [], skipped: []});
  nowhere.close();
});
