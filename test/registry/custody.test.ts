import {join} from 'node:path';
import test from 'ava';
import {systemClock} from '../../src/clock.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {createCustody} from '../../src/registry/custody.ts';
import {createFsBlobStore} from '../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../src/storage/fs/spools.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../support/folder.ts';

test('a blob whose last bytes still wait for the disk is recorded with its whole size', async (t) => {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const store = createFsBlobStore({path: join(folder, 'blobs')});
  const custody = createCustody({store, metadata, clock: systemClock});
  const bytes = Buffer.from('all of it');
  const digest = digestOf(bytes);

  const spool = await createSpools({path: join(folder, 'spool')}).open(digest);
  const appended = spool.append(bytes);
  t.is(spool.size, 0, 'nothing is in the file yet');
  await appended;
  await custody.keep(digest, spool);

  t.like(await metadata.blob(digest), {state: 'ready', size: bytes.length});
  t.deepEqual(await store.stat(digest), {size: bytes.length});
});
