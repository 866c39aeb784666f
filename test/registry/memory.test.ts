import test from 'ava';
import {digestOf} from '../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName} from '../../src/oci/name.ts';
import {createMemory} from '../../src/registry/memory.ts';
import type {ManifestRecord, RepositoryKey} from '../../src/storage/metadata.ts';

const KiB = 1024;
const repository = (name: string, registry = 'docker.io'): RepositoryKey => ({
  registry,
  name: parseName(name),
});
const blob = (index: number, size: number) => {
  const bytes = Buffer.alloc(size, index);
  return {bytes, digest: digestOf(bytes)};
};
const manifest = (text: string): ManifestRecord => {
  const bytes = Buffer.from(text);
  return {digest: digestOf(bytes), mediaType: OCI_MANIFEST, bytes, origin: 'upstream', linkedAt: 0};
};

test('a manifest is held for one repository and no other', (t) => {
  const memory = createMemory(64 * KiB);
  const record = manifest('{}');
  memory.keepManifest(repository('org/app'), record);
  t.is(memory.manifest(repository('org/app'), record.digest), record);
  t.is(memory.manifest(repository('org/other'), record.digest), undefined);
  t.is(memory.manifest(repository('org/app', 'ghcr.io'), record.digest), undefined);
});

test('a registry and a repository are not confused with another pair', (t) => {
  const memory = createMemory(64 * KiB);
  const record = manifest('{}');
  memory.keepManifest(repository('b/app', 'a'), record);
  t.is(memory.manifest(repository('app', 'a/b'), record.digest), record);
});

test('the bytes of a blob are held once, whichever repository brought them', (t) => {
  const memory = createMemory(64 * KiB);
  const {bytes, digest} = blob(1, KiB);
  memory.keepBlob(digest, bytes);
  t.is(memory.blob(digest), bytes);
});

test('the least recently used content is dropped first', (t) => {
  const memory = createMemory(6 * KiB);
  const [first, second, third] = [blob(1, KiB), blob(2, KiB), blob(3, KiB)];
  memory.keepBlob(first.digest, first.bytes);
  memory.keepBlob(second.digest, second.bytes);
  memory.blob(first.digest);
  memory.keepBlob(third.digest, third.bytes);
  t.truthy(memory.blob(first.digest));
  t.is(memory.blob(second.digest), undefined);
  t.truthy(memory.blob(third.digest));
});

test('blobs do not push manifests out', (t) => {
  const memory = createMemory(12 * KiB);
  const record = manifest('{}');
  memory.keepManifest(repository('app'), record);
  for (let index = 0; index < 100; index++) {
    const {bytes, digest} = blob(index, KiB);
    memory.keepBlob(digest, bytes);
  }
  t.is(memory.manifest(repository('app'), record.digest), record);
});

test('all that is held is less than the limit, empty content included', (t) => {
  const limit = 96 * KiB;
  const memory = createMemory(limit);
  const kept = Array.from({length: 1000}, (_, index) => blob(index % 256, index));
  for (const {bytes, digest} of kept) memory.keepBlob(digest, bytes);
  const held = kept.filter(({digest}) => memory.blob(digest));
  t.true(held.reduce((sum, {bytes}) => sum + bytes.length, 0) < limit);
  t.true(held.length > 0);
});

test('content larger than the limit is not held', (t) => {
  const memory = createMemory(3 * KiB);
  const {bytes, digest} = blob(1, 4 * KiB);
  memory.keepBlob(digest, bytes);
  t.is(memory.blob(digest), undefined);
});

for (const limit of [0, 1, 1000]) {
  test(`a limit of ${limit} bytes holds no manifest and never fails`, (t) => {
    const memory = createMemory(limit);
    const record = manifest('{}');
    memory.keepManifest(repository('app'), record);
    memory.keepBlob(record.digest, record.bytes);
    t.is(memory.manifest(repository('app'), record.digest), undefined);
  });
}
