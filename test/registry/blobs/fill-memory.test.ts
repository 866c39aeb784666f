import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {systemClock} from '../../../src/clock.ts';
import {createEvents} from '../../../src/events.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {fromFill} from '../../../src/registry/blobs/answer.ts';
import {createDamagedBlobs} from '../../../src/registry/blobs/damaged.ts';
import {createFills} from '../../../src/registry/blobs/fills.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createPassing} from '../../../src/registry/blobs/passing.ts';
import {MISS} from '../../../src/registry/freshness.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {UNLIMITED} from '../../../src/registry/space.ts';
import {createProcessClaims} from '../../../src/storage/claims.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {sameBytes} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';

const KIB = 1024;

const CHUNK_BYTES = 256 * KIB;
const chunksOf = (text: string): Buffer[] => [...text].map((letter) => Buffer.alloc(CHUNK_BYTES, letter));
const CONTENT = Buffer.concat(chunksOf('ab'));
const DIGEST = digestOf(CONTENT);

/** A download of `CONTENT`, each chunk of which has memory of its own, as those of a socket have. */
async function startFill(t: ExecutionContext) {
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

  const received: Buffer[] = [];
  const body = async function* () {
    for (const chunk of chunksOf('ab')) {
      received.push(chunk);
      yield chunk;
    }
  };
  const open = async () => ({size: CONTENT.length, start: 0, body: body(), close: () => {}});
  const source = {host: 'upstream.example', open, stream: open};
  const {fill} = fills.claim({digest: DIGEST, beganFor: 'anybody', source});
  const passage = createPassing(shared).from(source, undefined);
  return {fill, lifecycle, passage, received};
}

test('a stored blob leaves nothing of its download in memory, and readers go on with the store', async (t) => {
  const {fill, received} = await startFill(t);
  const reader = fill.read();
  const first = await reader.next();
  t.is(Buffer.from(first.value ?? []).toString(), 'a'.repeat(CHUNK_BYTES));
  await fill.done;

  const rest: Buffer[] = [];
  for await (const chunk of reader) rest.push(Buffer.from(chunk));
  t.is(Buffer.concat(rest).toString(), 'b'.repeat(CHUNK_BYTES));
  t.deepEqual(
    received.map(({buffer}) => buffer instanceof ArrayBuffer && buffer.detached),
    [true, true],
  );
});

test('a reader whose blob is evicted as soon as it is stored gets the rest from the upstream', async (t) => {
  const {fill, lifecycle, passage, received} = await startFill(t);
  const found = {digest: DIGEST, size: CONTENT.length, promised: undefined, report: MISS};
  const answer = fromFill(fill, passage, found);
  const given: Buffer[] = [];
  for await (const chunk of await answer.open()) {
    given.push(Buffer.from(chunk));
    if (given.length > 1) continue;
    await fill.done;
    t.true(await lifecycle.evict(DIGEST));
  }
  sameBytes(t, Buffer.concat(given), CONTENT);
  t.is(received.length, 4, 'it has been received once more');
});
