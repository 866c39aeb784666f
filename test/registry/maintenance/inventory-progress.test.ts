import {join} from 'node:path';
import test from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {
  type InventoryProgress,
  takeInventoryFor,
} from '../../../src/registry/maintenance/inventory-progress.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {manifestPut} from '../../storage/contract-metadata.ts';
import {createFolder} from '../../support/folder.ts';

const COUNT = 2600;

test('an inventory never falls back in its progress, and reaches the end', async (t) => {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const config = digestOf(Buffer.from('{}'));
  const references = [{digest: config, size: 2, kind: 'blob'}] as const;
  await metadata.commit(
    Array.from({length: COUNT}, (_, number) =>
      manifestPut(`manifest ${number}`, {references: [...references]}),
    ),
  );

  const states: InventoryProgress[] = [];
  const task = {
    signal: new AbortController().signal,
    progress: (state: InventoryProgress) => void states.push(state),
  };
  const protection = {isPinned: () => false, newestKept: () => 0};
  const {roots} = await takeInventoryFor(task, {metadata, protection, now: 0});
  t.is(roots.length, COUNT);
  t.is(states.at(-1)?.manifests, COUNT);

  const done = states.map((state) => state.done);
  t.deepEqual(
    done,
    done.toSorted((one, other) => one - other),
  );
  t.true(done.every((part) => part >= 0 && part <= 1));
  // The walk of the references is the second of six, and its first page has the first 500 of them.
  t.true(done.includes((1 + 500 / COUNT) / 6));
  t.true(done.includes(2 / 6));
});
