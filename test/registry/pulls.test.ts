import test from 'ava';
import {systemClock} from '../../src/clock.ts';
import {createEvents} from '../../src/events.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName} from '../../src/oci/name.ts';
import {createPulls} from '../../src/registry/pulls.ts';
import {DiskFull, type PullRecord} from '../../src/storage/metadata.ts';
import {createManualClock} from '../support/clock.ts';
import {wireInProcess} from '../support/wired.ts';

const DIGEST = digestOf(Buffer.from('a'));
const PULL: PullRecord = {
  digest: DIGEST,
  caller: 'user:a',
  repository: {registry: 'r.test', name: parseName('app')},
  address: '10.0.0.1',
  first: 1,
  last: 1,
  pulls: 1,
};

test('only the pulls that were last are remembered, as many as may be', async (t) => {
  const {storage} = await wireInProcess(t, {clock: systemClock, registries: []});
  const {metadata} = storage;
  const pulls = createPulls({metadata, handOver: async () => {}, events: createEvents(), maxRecords: 2});
  for (const [caller, last] of [
    ['user:a', 4],
    ['user:b', 2],
    ['user:c', 3],
  ] as const)
    await metadata.commit([{type: 'pull.put', pull: {...PULL, caller, first: last, last}}]);
  await pulls.bound();
  t.deepEqual(
    (await pulls.of(DIGEST)).pulls.map(({caller}) => caller),
    ['user:a', 'user:c'],
  );
});

test('pulls wait for a disk that takes nothing, and add up meanwhile', async (t) => {
  const {storage} = await wireInProcess(t, {clock: systemClock, registries: []});
  const events = createEvents();
  const clock = createManualClock(0);
  let isFull = true;
  const metadata = {
    ...storage.metadata,
    commit: async (...given: Parameters<typeof storage.metadata.commit>) => {
      if (isFull) throw new DiskFull('full', 'the disk is full');
      return storage.metadata.commit(...given);
    },
  };
  const pulls = createPulls({metadata, handOver: async () => {}, events});
  const pull = () =>
    events.emit('requests.counted', [
      {
        method: 'GET',
        kind: 'manifest',
        status: 200,
        outcome: 'hit',
        caller: 'user:a',
        registry: 'r.test',
        repository: parseName('app'),
        digest: DIGEST,
        count: 2,
        received: 0,
        bytes: 1,
        durations: new Map([[1, 2]]),
        client: '10.0.0.1',
        first: clock.now(),
        last: clock.now(),
        login: undefined,
        isServedHere: true,
      },
    ]);
  pull();
  await pulls.flush();
  await clock.advance(5000);
  pull();
  await pulls.flush();
  t.deepEqual((await pulls.of(DIGEST)).pulls, []);
  isFull = false;
  t.deepEqual((await pulls.of(DIGEST)).pulls, [
    {
      caller: 'user:a',
      repository: 'r.test/app',
      address: '10.0.0.1',
      first: '1970-01-01T00:00:00.000Z',
      last: '1970-01-01T00:00:05.000Z',
      pulls: 4,
    },
  ]);
});
