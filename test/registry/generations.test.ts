import test from 'ava';
import {parseName, parseTag} from '../../src/oci/name.ts';
import {areCurrent, createGenerations, type Generation} from '../../src/registry/generations.ts';
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
  const isOver = (generation: Generation) => !areCurrent(generations.slots, [generation]);
  return {generations, commit, end, all, isOver};
}

test('a repository’s generation lasts while nothing changes', (t) => {
  const {generations, isOver} = setUp();
  const first = generations.ofRepository(app);
  t.deepEqual(generations.ofRepository(app), first);
  t.false(isOver(first));
});

test('a commit ends the generation of its repository alone, from when it is asked for until it has ended', async (t) => {
  const {commit, end, all, isOver} = setUp();
  const before = all();
  const commits = [commit([PUT]), commit([PUT])];
  t.true(isOver(before.app));
  t.false(isOver(before.other));
  t.false(isOver(before.blob));
  // What is read now may be from before the commit or from after it.
  t.true(isOver(all().app));
  end(true);
  await Promise.all(commits);
  t.false(isOver(all().app));
  t.true(isOver(before.app));
});

test('a commit that fails, or that changes nothing, ends it as well', async (t) => {
  const {commit, end, all, isOver} = setUp();
  const {app: before} = all();
  end(false);
  t.false(await commit([PUT]));
  t.true(isOver(before));
  t.false(isOver(all().app));
});

test('a commit about the bytes of a blob ends that of the blob', async (t) => {
  const {commit, end, all, isOver} = setUp();
  const before = all();
  end(true);
  await commit([{type: 'blob.deleting', digest: blob.digest}]);
  t.deepEqual([isOver(before.app), isOver(before.other), isOver(before.blob)], [false, false, true]);
});

test('that something is used changes no answer', async (t) => {
  const {commit, end, all, isOver} = setUp();
  const before = all();
  end(true);
  await commit([
    {type: 'manifest.used', repository: app, digest, at: 0, age: 0},
    {type: 'tag-list.put', repository: app, names: [], at: 0},
    {type: 'cache-age.put', age: 1},
  ]);
  t.false(isOver(before.app));
});

test('when a disk fails, what every answer depends on ends', (t) => {
  const {generations, all, isOver} = setUp();
  const before = all();
  const configuration = generations.of('configuration');
  generations.endAll();
  // Every prepared answer depends on the configuration.
  t.true(isOver(configuration));
  t.false(isOver(before.app) || isOver(before.other) || isOver(before.blob));
});

test('a blob’s generation ends when its bytes leave the memory, and a repository’s when a manifest is forgotten', (t) => {
  const {generations, isOver} = setUp();
  const memory = createMemory(6 * 1024, generations);
  memory.keepBlob(blob.digest, blob.bytes);
  const ofBlob = generations.ofBlob(blob.digest);
  const larger = randomBlob(3500);
  memory.keepBlob(larger.digest, larger.bytes);
  t.is(memory.blob(blob.digest), undefined);
  t.true(isOver(ofBlob));
  const ofApp = generations.ofRepository(app);
  memory.forgetManifest(app, digest);
  t.true(isOver(ofApp));
});

test('what an upstream reports of its rate limit, another configuration and other logins end their own generation', (t) => {
  const {generations, isOver} = setUp();
  const before = [generations.ofQuota('a.test'), generations.of('configuration'), generations.of('logins')];
  const ended = () => before.map(isOver);
  generations.endQuota('b.test');
  t.deepEqual(ended(), [false, false, false]);
  generations.endQuota('a.test');
  t.deepEqual(ended(), [true, false, false]);
  generations.end('configuration');
  generations.end('logins');
  t.deepEqual(ended(), [true, true, true]);
});

test('no repository shares the slot of the configuration or of logins', (t) => {
  const {generations} = setUp();
  const shared = new Set([generations.of('configuration').slot, generations.of('logins').slot]);
  t.is(shared.size, 2);
  for (let index = 0; index < 100_000; index += 1) {
    const {slot} = generations.ofRepository({registry: 'a', name: parseName(`r${index}`)});
    if (shared.has(slot)) t.fail(`r${index}`);
  }
});

test('which names share a slot differs from one server to the next', (t) => {
  const slots = () => {
    const {generations} = setUp();
    return Array.from({length: 8}, (_, index) => generations.ofQuota(`${index}`).slot);
  };
  t.notDeepEqual(slots(), slots());
});

test('values wrap around, and none is that of a generation which is over from the start', (t) => {
  const {generations, commit, all, isOver} = setUp();
  const {slot} = generations.ofRepository(app);
  generations.slots[slot] = 0x7fff_ffff;
  const last = generations.ofRepository(app);
  generations.endRepository(app);
  t.true(isOver(last));
  t.is(generations.ofRepository(app).value, 0);
  void commit([PUT]);
  t.true(isOver(all().app));
});

test('an answer holds only while all of its generations are current', (t) => {
  const {generations} = setUp();
  const both = [generations.ofRepository(app), generations.ofRepository(other)];
  t.true(areCurrent(generations.slots, both));
  generations.endRepository(other);
  t.false(areCurrent(generations.slots, both));
});
