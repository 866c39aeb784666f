import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {type Digest, digestOf} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {createLinkBound} from '../../../src/registry/maintenance/link-bound.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock, DAY} from '../../support/backref.ts';
import {createFolder} from '../../support/folder.ts';

const repository = {registry: 'docker.io', name: parseName('library/app')};
const NAMES = ['stored', 'pushed', 'named', 'first', 'second', 'third'] as const;
type Name = (typeof NAMES)[number];
const blob = (name: Name): Digest => digestOf(Buffer.from(name));

/** Six links, each a millisecond younger than the one before. Of the unstored copies, a manifest names the oldest. */
async function setUp(t: ExecutionContext, maxLinks?: number) {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const clock = createMovableClock();
  const start = clock.now();
  const bytes = Buffer.from('manifest');
  await metadata.commit([
    ...NAMES.map(
      (name, place): Change => ({
        type: 'blob.link',
        repository,
        digest: blob(name),
        size: 1,
        origin: name === 'pushed' ? 'local' : 'upstream',
        at: start + place,
      }),
    ),
    {type: 'blob.put', digest: blob('stored'), size: 1, at: start},
    {
      type: 'manifest.put',
      repository,
      digest: digestOf(bytes),
      mediaType: 'text/any',
      bytes,
      edge: undefined,
      references: [{digest: blob('named'), size: 1, kind: 'blob'}],
      origin: 'upstream',
      at: start,
    },
  ]);
  const bound = createLinkBound({metadata, clock, ...(maxLinks === undefined ? {} : {maxLinks})});
  return {
    clock,
    /** The links that stay. */
    bound: async (signal = new AbortController().signal): Promise<Name[]> => {
      await bound(signal);
      const links = await Promise.all(NAMES.map((name) => metadata.blobLink(repository, blob(name))));
      return NAMES.filter((_, place) => links[place]);
    },
  };
}

test('links to copies that are not stored last a year; stored and pushed blobs keep theirs', async (t) => {
  const {clock, bound} = await setUp(t);
  clock.move(365 * DAY);
  t.deepEqual(await bound(), [...NAMES]);
  clock.move(4);
  t.deepEqual(await bound(), ['stored', 'pushed', 'second', 'third']);
});

test('of too many links to copies that are not stored, the oldest go, but not one that a manifest needs', async (t) => {
  const {bound} = await setUp(t, 2);
  t.deepEqual(await bound(), ['stored', 'pushed', 'named', 'third']);
});

test('as many links as may be are left alone', async (t) => {
  const {bound} = await setUp(t, 4);
  t.deepEqual(await bound(), [...NAMES]);
});

test('the walk over links ends when the server stops', async (t) => {
  const {bound} = await setUp(t, 0);
  t.deepEqual(await bound(AbortSignal.abort()), [...NAMES]);
});
