import test from 'ava';
import type {Change, Metadata, Precondition} from '../../../src/storage/metadata.ts';
import {DAY} from '../../support/backref.ts';
import {randomBlob} from '../../support/content.ts';
import {begun, caller, chunkOf, createHosted, type Hosted, pushBlob, storedBytes} from './hosted.ts';

const blob = randomBlob(50_000);

/** Metadata whose first commit with a change of this type, once armed, waits at a gate. */
function gateAt(type: Change['type'], when: 'before' | 'after') {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  let isArmed = false;
  const metadata = (real: Metadata): Metadata => ({
    ...real,
    async commit(changes: readonly Change[], preconditions: readonly Precondition[] = []) {
      const isGated = isArmed && changes.some((change) => change.type === type);
      if (isGated) isArmed = false;
      const wait = async () => {
        reached.resolve();
        await gate.promise;
      };
      if (isGated && when === 'before') await wait();
      const done = await real.commit(changes, preconditions);
      if (isGated && when === 'after') await wait();
      return done;
    },
  });
  const arm = () => {
    isArmed = true;
  };
  return {metadata, arm, reached: reached.promise, open: gate.resolve};
}

const collect = ({garbage}: Hosted) =>
  garbage.run({grace: 0, signal: new AbortController().signal, progress: () => {}});

async function isIntact(hosted: Hosted): Promise<boolean> {
  const link = await hosted.metadata.blobLink(hosted.route().repository, blob.digest);
  const record = await hosted.metadata.blob(blob.digest);
  const bytes = await storedBytes(hosted, blob.digest);
  return link?.origin === 'local' && record?.state === 'ready' && bytes.equals(blob.bytes);
}

test('a blob that is pushed while garbage collection deletes it is stored after the deletion', async (t) => {
  const gate = gateAt('blob.deleting', 'after');
  const hosted = await createHosted(t, {metadata: gate.metadata});
  await pushBlob(hosted, blob);
  await hosted.push.deleteBlob(hosted.route(), blob.digest, caller);
  hosted.clock.move(DAY);
  gate.arm();
  const collecting = collect(hosted);
  await gate.reached;
  const id = await begun(hosted, hosted.route());
  let isDone = false;
  const pushing = hosted.push
    .finish(hosted.route(), id, blob.digest, chunkOf(blob.bytes), caller)
    .then(() => {
      isDone = true;
    });
  // Other pushes pass it.
  for (let count = 0; count < 2; count++) await pushBlob(hosted, randomBlob(50_000));
  t.false(isDone, 'it waits for the deletion');
  gate.open();
  t.like(await collecting, {blobs: 1});
  await pushing;
  t.true(await isIntact(hosted));
});

test('a blob whose bytes are stored and whose row is not yet committed is not collected as an orphan', async (t) => {
  const gate = gateAt('blob.put', 'before');
  const looked = Promise.withResolvers<void>();
  const metadata = (real: Metadata): Metadata => ({
    ...gate.metadata(real),
    async uncollectedBlobs(...page) {
      const found = await real.uncollectedBlobs(...page);
      looked.resolve();
      return found;
    },
  });
  const hosted = await createHosted(t, {metadata});
  gate.arm();
  const pushing = pushBlob(hosted, blob);
  await gate.reached;
  t.truthy(await hosted.store.stat(blob.digest));
  hosted.clock.move(DAY - 1000);
  const collecting = collect(hosted);
  await hosted.push.begin(hosted.route('other/app'), {algorithm: undefined, mount: undefined}, caller);
  // Blobs with a row have been looked for; without a grace, this one would be among them. Orphans are next.
  await looked.promise;
  gate.open();
  await pushing;
  t.like(await collecting, {blobs: 0});
  t.true(await isIntact(hosted));
});

test('a mount of a blob that garbage collection is deleting begins an upload', async (t) => {
  const gate = gateAt('blob.deleting', 'after');
  const hosted = await createHosted(t, {metadata: gate.metadata});
  await pushBlob(hosted, blob);
  await hosted.push.deleteBlob(hosted.route(), blob.digest, caller);
  hosted.clock.move(DAY);
  gate.arm();
  const collecting = collect(hosted);
  await gate.reached;
  const mount = {digest: blob.digest, from: hosted.route()};
  t.not(await hosted.push.begin(hosted.route('other/app'), {algorithm: undefined, mount}, caller), 'mounted');
  gate.open();
  t.like(await collecting, {blobs: 1});
  await pushBlob(hosted, blob);
  t.true(await isIntact(hosted));
});
