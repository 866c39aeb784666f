import {join} from 'node:path';
import test from 'ava';
import {systemClock} from '../../../src/clock.ts';
import {createEvents} from '../../../src/events.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {createDamagedBlobs} from '../../../src/registry/blobs/damaged.ts';
import {createFills} from '../../../src/registry/blobs/fills.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {UNLIMITED} from '../../../src/registry/space.ts';
import {createProcessClaims} from '../../../src/storage/claims.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';

const KIB = 1024;

test('a stored blob leaves nothing of its download in memory, and readers go on with the store', async (t) => {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata});
  const shared = {store, space: UNLIMITED, clock: systemClock, events: createEvents()};
  const damaged = createDamagedBlobs(shared.events);
  const lifecycle = createBlobLifecycle({...shared, metadata, memory: createMemory(0), damaged});
  const spools = createSpools({path: join(folder, 'spool')});
  const fills = createFills({...shared, lifecycle, spools, coordination: createProcessClaims()});
  t.teardown(() => fills.close());

  const chunks = ['a', 'b'].map((text) => Buffer.alloc(256 * KIB, text));
  const content = Buffer.concat(chunks);
  const body = async function* () {
    yield* chunks;
  };
  const open = async () => ({size: content.length, start: 0, body: body(), close: () => {}});
  const source = {host: 'upstream.example', open, stream: open};
  const {fill} = fills.claim({digest: digestOf(content), beganFor: 'anybody', source});
  const reader = fill.read();
  const first = await reader.next();
  t.is(Buffer.from(first.value ?? []).toString(), 'a'.repeat(256 * KIB));
  await fill.done;

  const rest: Buffer[] = [];
  for await (const chunk of reader) rest.push(Buffer.from(chunk));
  t.is(Buffer.concat(rest).toString(), 'b'.repeat(256 * KIB));
  t.deepEqual(
    chunks.map(({buffer}) => buffer instanceof ArrayBuffer && buffer.detached),
    [true, true],
  );
});
