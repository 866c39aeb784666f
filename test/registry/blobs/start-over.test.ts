import test from 'ava';
import {createEvents} from '../../../src/events.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {download} from '../../../src/registry/blobs/download.ts';
import {createProgress, follow} from '../../../src/registry/blobs/progress.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {createClockWithoutPauses} from '../../support/backref.ts';
import {createFolder} from '../../support/folder.ts';

const MIB = 1024 * 1024;

async function* none(): AsyncGenerator<Uint8Array, void> {}

test('a reader that begins while the spool is emptied to start over waits for the bytes that come instead', async (t) => {
  const content = Buffer.alloc(3 * MIB, 'b');
  const digest = digestOf(content);
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  t.teardown(() => spool.discard());
  await spool.append(Buffer.alloc(2 * MIB, 'a'));
  await spool.flush();
  const progress = createProgress();
  const {signal: stopping} = new AbortController();

  const read = async (): Promise<Buffer> => {
    const behind = {
      read: (at: number, limit: number) => spool.piece(at, Math.min(limit, spool.size)),
      rest: none,
    };
    const copies: Buffer[] = [];
    for await (const chunk of follow(progress, behind, 0, 2 * MIB)) copies.push(Buffer.from(chunk));
    return Buffer.concat(copies);
  };
  const readers: Promise<Buffer>[] = [];

  await download({
    digest,
    source: {
      host: 'upstream.example',
      open: async (_demand, {start} = {start: 0}) => ({
        size: content.length,
        start,
        body: (async function* () {
          for (let at = start; at < content.length; at += MIB) yield content.subarray(at, at + MIB);
        })(),
        close: () => {},
      }),
      stream: async () => undefined,
    },
    expected: undefined,
    found: spool.read(0, spool.size),
    spool: {
      get size() {
        return spool.size;
      },
      append: (chunk) => spool.append(chunk),
      async truncate() {
        const emptied = spool.truncate();
        readers.push(read());
        await emptied;
        readers.push(read());
      },
    },
    room: {grow: async () => {}, release: () => {}},
    progress,
    demand: {wanted: true, watch: () => () => {}, stopping},
    clock: createClockWithoutPauses(),
    events: createEvents(),
    stopping,
  });
  t.is(readers.length, 2);
  for (const reader of readers) t.true((await reader).equals(content.subarray(0, 2 * MIB + 1)));
});
