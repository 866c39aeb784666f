import test from 'ava';
import {parseName, parseTag} from '../../src/oci/name.ts';
import {createGenerations} from '../../src/registry/generations.ts';
import {createMemory} from '../../src/registry/memory.ts';
import type {Change, Metadata} from '../../src/storage/metadata.ts';
import {plainManifest, randomBlob} from '../support/content.ts';

const app = {registry: 'example.test', name: parseName('team/app')};
const other = {registry: 'example.test', name: parseName('team/other')};
const {digest} = plainManifest();
const blob = randomBlob(10);

const PUT: Change = {
  type: 'tag.put',
  repository: app,
  name: parseTag('1'),
  digest,
  origin: 'upstream',
  at: 0,
};

/** Generations over metadata whose one commit ends when the test says so. */
function setUp() {
  const generations = createGenerations();
  const {promise: committed, resolve: end} = Promise.withResolvers<boolean>();
  const {commit} = generations.watch({commit: () => committed} as unknown as Metadata);
  const all = () => ({
    app: generations.ofRepository(app),
    other: generations.ofRepository(other),
    blob: generations.ofBlob(blob.digest),
  });
  return {generations, commit, end, all};
}

test('a repository’s generation lasts while nothing changes', (t) => {
  const {generations} = setUp();
  const first = generations.ofRepository(app);
  t.is(generations.ofRepository(app), first);
  t.false(first.isOver);
});

test('a commit ends the generation of its repository alone, from when it is asked for until it has ended', async (t) => {
  const {commit, end, all} = setUp();
  const before = all();
  const commits = [commit([PUT]), commit([PUT])];
  t.true(before.app.isOver);
  t.false(before.other.isOver);
  t.false(before.blob.isOver);
  // What is read now may be from before the commit or from after it.
  t.true(all().app.isOver);
  end(true);
  await Promise.all(commits);
  t.false(all().app.isOver);
  t.true(before.app.isOver);
});

test('a commit that fails, or that changes nothing, ends it as well', async (t) => {
  const {commit, end, all} = setUp();
  const {app: before} = all();
  end(false);
  t.false(await commit([PUT]));
  t.true(before.isOver);
  t.false(all().app.isOver);
});

test('a commit about the bytes of a blob ends that of the blob', async (t) => {
  const {commit, end, all} = setUp();
  const before = all();
  end(true);
  await commit([{type: 'blob.deleting', digest: blob.digest}]);
  t.deepEqual([before.app.isOver, before.other.isOver, before.blob.isOver], [false, false, true]);
});

test('that something is used changes no answer', async (t) => {
  const {commit, end, all} = setUp();
  const before = all();
  end(true);
  await commit([
    {type: 'manifest.used', repository: app, digest, at: 0, age: 0},
    {type: 'tag-list.put', repository: app, names: [], at: 0},
    {type: 'cache-age.put', age: 1},
  ]);
  t.false(before.app.isOver);
});

test('when a disk fails, all generations end', (t) => {
  const {generations, all} = setUp();
  const before = all();
  generations.endAll();
  t.true(before.app.isOver && before.other.isOver && before.blob.isOver);
});

test('a blob’s generation ends when its bytes leave the memory, and a repository’s when a manifest is forgotten', (t) => {
  const generations = createGenerations();
  const memory = createMemory(6 * 1024, generations);
  memory.keepBlob(blob.digest, blob.bytes);
  const ofBlob = generations.ofBlob(blob.digest);
  const larger = randomBlob(3500);
  memory.keepBlob(larger.digest, larger.bytes);
  t.is(memory.blob(blob.digest), undefined);
  t.true(ofBlob.isOver);
  const ofApp = generations.ofRepository(app);
  memory.forgetManifest(app, digest);
  t.true(ofApp.isOver);
});
