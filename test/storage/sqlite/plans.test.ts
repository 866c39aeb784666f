import {join} from 'node:path';
import {DatabaseSync, type SQLInputValue} from 'node:sqlite';
import test, {type ExecutionContext} from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {parseName, type Tag} from '../../../src/oci/name.ts';
import {createUploadId} from '../../../src/oci/upload.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {createCommit} from '../../../src/storage/sql/commit.ts';
import {compileWrites, createReads} from '../../../src/storage/sql/metadata.ts';
import {bind, type RunStatement, type Statement} from '../../../src/storage/sql/statement.ts';
import {createCompiler} from '../../../src/storage/sqlite/metadata.ts';
import {prepareOnce} from '../../../src/storage/sqlite/prepared.ts';
import {prepareDatabase} from '../../../src/storage/sqlite/schema.ts';
import {createFolder} from '../../support/folder.ts';

const REPOSITORY = {registry: 'docker.io', name: parseName('library/app')};
const DIGEST = digestOf(Buffer.from('x'));
/**
 * How EXPLAIN QUERY PLAN says that a statement looks at every row, except those of a page that an index found, or sorts
 * rows before it gives the first one.
 */
const SLOW = /^SCAN (?!page$)|TEMP B-TREE/;

/** Explains how SQLite runs a statement. */
async function withPlans(t: ExecutionContext): Promise<(sql: string, parameters: unknown[]) => string[]> {
  const path = join(await createFolder(t), 'meta.db');
  prepareDatabase(path);
  const database = new DatabaseSync(path);
  t.teardown(() => database.close());
  return (sql, parameters) =>
    database
      .prepare(`explain query plan ${sql}`)
      .all(...(parameters as SQLInputValue[]))
      .map(({detail}) => String(detail));
}

test('every read walks along an index, and gives rows in that order', async (t) => {
  const planOf = await withPlans(t);
  const plans = new Map<string, string[]>();
  const run: RunStatement = <Args, Row>(query: Statement<Args, Row>, args: Args) => {
    plans.set(query.sql, planOf(query.sql, bind(query, args)));
    return [{id: 1, names: '[]', bytes: Buffer.alloc(0)}] as Row[];
  };
  const reads = createReads(createCompiler(), run);
  const types = ['a/b', 'c/d', ''];
  await reads.repositories('docker.io', {limit: 1});
  await reads.manifest(REPOSITORY, DIGEST);
  await reads.storedManifest(DIGEST);
  await reads.manifests(undefined, 1);
  await reads.lastManifest();
  await reads.referrerRows(undefined, 1);
  await reads.references(DIGEST);
  await reads.promisedSize(REPOSITORY, DIGEST);
  await reads.blobStore();
  await reads.referrerList(REPOSITORY, DIGEST);
  await reads.referrers(REPOSITORY, DIGEST, {limit: 1});
  await reads.referrers(REPOSITORY, DIGEST, {types: types.slice(1), limit: 1});
  await reads.referrers(REPOSITORY, DIGEST, {types, limit: 1});
  await reads.referrerText(REPOSITORY, DIGEST, {limit: 1});
  await reads.referrerText(REPOSITORY, DIGEST, {types, limit: 1});
  await reads.unlistedReferrers(REPOSITORY, DIGEST, 1);
  await reads.referrerSubjects(REPOSITORY, DIGEST);
  await reads.ownSubjects(REPOSITORY, DIGEST);
  await reads.tag(REPOSITORY, 'v1' as Tag);
  await reads.tagsOn(REPOSITORY, DIGEST);
  await reads.tagList(REPOSITORY);
  await reads.blob(DIGEST);
  await reads.blobs(DIGEST, 1);
  await reads.blobBytes(DIGEST, 1);
  await reads.blobLink(REPOSITORY, DIGEST);
  await reads.localBlobBytes(REPOSITORY);
  await reads.blobHolders('docker.io', DIGEST, 1);
  await reads.localTags(REPOSITORY, {limit: 1});
  await reads.upload(createUploadId());
  await reads.idleUploads(1, 1);
  await reads.uploadsOf('user:alice', 1);
  await reads.tagJournal(REPOSITORY, DIGEST);
  await reads.pendingTagChanges({repository: REPOSITORY, subject: DIGEST, digest: DIGEST}, 1);
  await reads.unreferencedBlobs(1, 1);
  await reads.uncollectedBlobs(1, 1);
  await reads.uncollectedManifests(1);
  await reads.expiredManifests(1, 1);
  await reads.links(undefined, 1);
  await reads.allReferences(undefined, 1);
  await reads.allTags(undefined, 1);
  await reads.localBlobLinks(undefined, 1);
  await reads.pins();
  await reads.cacheAge();
  await reads.copiedBlobLinks(undefined, 1);
  t.true(plans.size >= 33);
  for (const [sql, plan] of plans)
    t.false(
      plan.some((step) => SLOW.test(step)),
      `${sql}: ${plan.join('; ')}`,
    );
});

test('a filtered page of referrers reads along the index of types', async (t) => {
  const planOf = await withPlans(t);
  const plans: string[][] = [];
  const reads = createReads(createCompiler(), <Args, Row>(query: Statement<Args, Row>, args: Args) => {
    if (query.sql.includes('"artifact_type" = ')) plans.push(planOf(query.sql, bind(query, args)));
    return [{id: 1}] as Row[];
  });
  await reads.referrers(REPOSITORY, DIGEST, {types: ['a/b'], limit: 1});
  await reads.referrers(REPOSITORY, DIGEST, {types: ['a/b', 'c/d', ''], limit: 1});
  const searches = plans.map((plan) => plan.filter((step) => step.startsWith('SEARCH')));
  t.deepEqual(
    searches.map((steps) => steps.length),
    [1, 3],
  );
  for (const step of searches.flat()) {
    t.regex(step, /INDEX referrer_by_type \(repository=\? AND subject=\? AND artifact_type=\? AND seq>\?\)/);
  }
});

test('a page of many types is found in the index of types, and only its rows are read', async (t) => {
  const planOf = await withPlans(t);
  const plans: string[] = [];
  const reads = createReads(createCompiler(), <Args, Row>(query: Statement<Args, Row>, args: Args) => {
    plans.push(planOf(query.sql, bind(query, args)).join('; '));
    return [{id: 1}] as Row[];
  });
  const types = Array.from({length: 9}, (_, index) => `type/${index}`);
  await reads.referrers(REPOSITORY, DIGEST, {types, limit: 1});
  await reads.referrerText(REPOSITORY, DIGEST, {types, limit: 1});
  for (const plan of plans.slice(-2)) {
    t.regex(
      plan,
      /SEARCH referrer USING INDEX sqlite_autoindex_referrer_1 \(repository=\? AND subject=\? AND seq=\?\)/,
    );
    t.regex(
      plan,
      /SEARCH typed USING COVERING INDEX referrer_by_type \(repository=\? AND subject=\? AND artifact_type=\? AND seq>\?\)/,
    );
    t.notRegex(plan, /TEMP B-TREE FOR ORDER BY.*SEARCH referrer/);
  }
});

test('a page of the journal begins at its position in the primary key', async (t) => {
  const planOf = await withPlans(t);
  const plans: string[] = [];
  const reads = createReads(createCompiler(), <Args, Row>(query: Statement<Args, Row>, args: Args) => {
    plans.push(planOf(query.sql, bind(query, args)).join('; '));
    return [{id: 1}] as Row[];
  });
  await reads.pendingTagChanges({repository: REPOSITORY, subject: DIGEST, digest: DIGEST}, 1);
  t.regex(
    plans.at(-1) ?? '',
    /^SEARCH tag_journal USING INDEX sqlite_autoindex_tag_journal_1 \(\(repository,subject,digest\)>/,
  );
});

test('garbage is found along indexes that contain nothing else', async (t) => {
  const planOf = await withPlans(t);
  const plans: string[] = [];
  const reads = createReads(createCompiler(), <Args, Row>(query: Statement<Args, Row>, args: Args) => {
    plans.push(planOf(query.sql, bind(query, args)).join('; '));
    return [] as Row[];
  });
  await reads.unreferencedBlobs(1, 1);
  await reads.uncollectedBlobs(1, 1);
  await reads.uncollectedManifests(1);
  await reads.expiredManifests(1, 1);
  const [links, blobs, manifests, expired] = plans;
  t.regex(links ?? '', /^SEARCH link USING INDEX repository_blob_loose \(linked_at<\?\)/);
  t.regex(blobs ?? '', /INDEX blob_loose \(stored_at<\?\).*INDEX blob_deleting/);
  t.regex(manifests ?? '', /^SEARCH loose/);
  t.regex(expired ?? '', /^SEARCH link USING INDEX repository_manifest_by_expiry/);
});

test('every change finds its rows by an index', async (t) => {
  const planOf = await withPlans(t);
  for (const [name, {sql, parameters}] of Object.entries(compileWrites(createCompiler()))) {
    const plan = planOf(
      sql,
      parameters.map(() => null),
    );
    t.false(
      plan.some((step) => SLOW.test(step)),
      `${name}: ${plan.join('; ')}`,
    );
  }
});

test('constants are written into the text of a statement: bound, they would have it prepared again at each run', (t) => {
  const {looseChildren, markTagGone} = compileWrites(createCompiler());
  t.regex(looseChildren.sql, /"loose" = 1$/);
  t.deepEqual(looseChildren.parameters, ['manifest', 'repository']);
  t.regex(markTagGone.sql, /"origin" = 'upstream'/);
});

test('deleting a manifest that names one blob many times takes no more steps than one that names it once', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  prepareDatabase(path);
  const database = new DatabaseSync(path);
  t.teardown(() => database.close());
  const run = prepareOnce(database);
  const commit = createCommit(compileWrites(createCompiler()));
  const stepsOf = (...changes: Change[]): number => {
    const work = commit(changes, []);
    let count = 0;
    for (let next = work.next(); !next.done; count++)
      next = work.next(run(next.value.sql, next.value.parameters));
    return count;
  };
  const link: Change = {
    type: 'blob.link',
    repository: REPOSITORY,
    digest: DIGEST,
    size: 1,
    origin: 'local',
    at: 1,
  };
  const stepsToDelete = (times: number): number => {
    const bytes = Buffer.from(`${times}`);
    const digest = digestOf(bytes);
    const references = Array.from({length: times}, () => ({digest: DIGEST, size: 1, kind: 'blob' as const}));
    stepsOf(link, {
      type: 'manifest.put',
      repository: REPOSITORY,
      digest,
      mediaType: 'application/json',
      bytes,
      edge: undefined,
      references,
      origin: 'local',
      at: 1,
    });
    return stepsOf({type: 'manifest.delete', repository: REPOSITORY, digest});
  };
  t.is(stepsToDelete(100), stepsToDelete(1));
});
