import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createLeases, createProcessClaims} from '../../src/storage/claims.ts';
import type {Metadata} from '../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {createManualClock} from '../support/clock.ts';
import {createFolder} from '../support/folder.ts';
import {coordinationContract, held} from './contract-coordination.ts';

async function openMetadata(t: ExecutionContext): Promise<Metadata> {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  return metadata;
}

coordinationContract(test, 'in one process', async (t) => {
  const claims = createProcessClaims();
  return {metadata: await openMetadata(t), join: () => claims};
});

const createSkippingClock = () => createManualClock(undefined, {skipBelow: 2000});

coordinationContract(test, 'leases within a process', async (t) => {
  const metadata = await openMetadata(t);
  const leases = createLeases({metadata, owner: 'one', clock: createSkippingClock()});
  return {metadata, join: () => leases};
});

coordinationContract(test, 'leases among processes', async (t) => {
  const metadata = await openMetadata(t);
  const clock = createSkippingClock();
  let processes = 0;
  return {metadata, join: () => createLeases({metadata, owner: `process ${processes++}`, clock})};
});

test('a lease lapses when its holder dies, and the holder can no longer commit what it had begun', async (t) => {
  const metadata = await openMetadata(t);
  const clock = createManualClock();
  const [one, two] = ['one', 'two'].map((owner) => createLeases({metadata, owner, clock}));
  const lost = await held(t, one as NonNullable<typeof one>);
  await clock.advance(10_000);
  t.true(await lost.renew(), 'nobody has taken it over');
  await clock.advance(9_999);
  t.false((await two?.claim('garbage', 10_000))?.mine);
  await clock.advance(1);
  const taken = await held(t, two as NonNullable<typeof two>);
  t.false(await lost.renew());
  t.false(await metadata.commit([{type: 'blob-store.put', id: 'late'}], lost.fence));
  await lost.release();
  t.true(await metadata.commit([{type: 'blob-store.put', id: 'in time'}], taken.fence));
});

test('a process whose lease could not be written may claim the key again', async (t) => {
  const metadata = await openMetadata(t);
  let full = true;
  const leases = createLeases({
    metadata: {
      ...metadata,
      commit: (...commit) => (full ? Promise.reject(new Error('no room')) : metadata.commit(...commit)),
    },
    owner: 'one',
    clock: createManualClock(),
  });
  await t.throwsAsync(leases.claim('garbage', 10_000), {message: 'no room'});
  full = false;
  t.true((await leases.claim('garbage', 10_000)).mine);
});
