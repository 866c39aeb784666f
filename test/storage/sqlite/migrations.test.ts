import {stat} from 'node:fs/promises';
import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import test from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {parseName, type Tag} from '../../../src/oci/name.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {MIGRATIONS} from '../../../src/storage/sqlite/migrations.ts';
import type {Migration} from '../../../src/storage/sqlite/schema.ts';
import {createFolder} from '../../support/folder.ts';

const APP = {registry: 'docker.io', name: parseName('library/app')};
const [used, unused, cached, orphan, foreign, foreign512] = [
  'used',
  'unused',
  'cached',
  'orphan',
  'foreign',
  'foreign512',
].map((name) => digestOf(Buffer.from(name), name.endsWith('512') ? 'sha512' : 'sha256'));
const NONDISTRIBUTABLE = 'application/vnd.oci.image.layer.nondistributable.v1.tar';
const MANIFEST = Buffer.from(
  JSON.stringify({
    layers: [
      {mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: used, size: 1},
      {mediaType: NONDISTRIBUTABLE, digest: foreign, size: 6},
      {mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', digest: foreign512, size: 7},
      {mediaType: NONDISTRIBUTABLE, digest: 'sha256:short', size: 8},
      {mediaType: NONDISTRIBUTABLE, digest: unused, size: 'text'},
      // Larger than any integer that can be read again.
      {mediaType: NONDISTRIBUTABLE, digest: unused, size: 2 ** 53},
      NONDISTRIBUTABLE,
    ],
  }),
);
const digest = digestOf(MANIFEST);
const forgotten = digestOf(Buffer.from('forgotten'));

const CONTENT = `
  pragma journal_mode = wal;
  pragma application_id = ${0x62726566};
  pragma user_version = 1;
  insert into repository (id, registry, name) values (1, 'docker.io', 'library/app');
  insert into manifest values ('${digest}', ${MANIFEST.length}, cast('${MANIFEST}' as blob)), ('${forgotten}', 1, x'00');
  insert into repository_manifest values (1, 1, '${digest}', 'local', 'text/any', 5, 6);
  insert into tag values (1, 'v1', 'local', '${digest}', 7, null);
  insert into tag_list values (1, '["v1"]', 8);
  insert into blob values
    ('${used}', 1, 'ready', 9, 9), ('${unused}', 2, 'ready', 9, 9), ('${cached}', 3, 'ready', 9, 9), ('${orphan}', 4, 'ready', 9, 9);
  insert into repository_blob values
    (1, '${foreign}', 'local', 6, 10), (1, '${used}', 'local', 1, 10), (1, '${unused}', 'local', 2, 10), (1, '${cached}', 'upstream', 3, 10);
  insert into reference values ('${digest}', 0, '${used}', 'blob', 1);
`;

test('a database of the first schema keeps its content, and its garbage is found', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  {
    using database = new DatabaseSync(path);
    database.exec(MIGRATIONS[0]);
    database.exec(CONTENT);
  }
  const reports: Migration[] = [];
  const migrating = (migration: Migration) => void reports.push(migration);
  const {size} = await stat(path);
  const metadata = await openSqliteMetadata({path, migrating});
  t.teardown(() => metadata.close());
  t.like(reports[0], {state: 'begins', from: 1, to: MIGRATIONS.length, bytes: size});
  t.like(reports[1], {state: 'done', from: 1, to: MIGRATIONS.length});
  t.is(reports.length, 2);
  t.deepEqual(await metadata.manifest(APP, digest), {
    digest,
    mediaType: 'text/any',
    bytes: MANIFEST,
    origin: 'local',
    linkedAt: 5,
  });
  t.like(await metadata.tag(APP, 'v1' as Tag), {digest, origin: 'local', checkedAt: 7});
  t.deepEqual(await metadata.tagList(APP), {names: ['v1'], checkedAt: 8});
  t.is(await metadata.promisedSize(APP, used ?? digest), 1);
  t.like(await metadata.blobLink(APP, cached ?? digest), {size: 3, origin: 'upstream'});

  t.deepEqual(await metadata.references(digest), [
    {digest: used, size: 1, kind: 'blob'},
    {digest: foreign, size: 6, kind: 'foreign'},
    {digest: foreign512, size: 7, kind: 'foreign'},
  ]);
  t.deepEqual(await metadata.uncollectedManifests(10), [{digest: forgotten, size: 1}]);
  t.deepEqual(await metadata.unreferencedBlobs(100, 10), [{repository: APP, digest: unused, size: 2}]);
  t.deepEqual(await metadata.uncollectedBlobs(100, 10), [
    {digest: orphan, size: 4, state: 'ready', storedAt: 9},
  ]);
  t.is(await metadata.localBlobBytes(APP), 6 + 1 + 2);
  t.deepEqual(await metadata.expiredManifests(100, 10), []);
  t.deepEqual(await metadata.idleUploads(100, 10), []);

  await metadata.commit([
    {type: 'manifest.delete', repository: APP, digest},
    {type: 'manifest.collect', digest},
    {type: 'manifest.collect', digest: forgotten},
  ]);
  t.deepEqual(await metadata.references(digest), []);
  t.deepEqual(await metadata.uncollectedManifests(10), []);
  using database = new DatabaseSync(path);
  t.deepEqual(database.prepare('pragma foreign_key_check').all(), []);
  t.deepEqual(database.prepare('select count(*) as count from manifest').all(), [{count: 0}]);
});

test('a new database, and one of this schema, are no migration', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  let reports = 0;
  const migrating = () => {
    reports += 1;
  };
  for (let time = 0; time < 2; time += 1) await (await openSqliteMetadata({path, migrating})).close();
  t.is(reports, 0);
});

test('a database may lie in a folder whose name has a quotation mark', async (t) => {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), "it's here", 'meta.db')});
  t.teardown(() => metadata.close());
  t.is(await metadata.lastManifest(), undefined);
});
