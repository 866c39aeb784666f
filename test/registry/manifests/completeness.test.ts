import test from 'ava';
import {type Digest, parseDigest} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {isComplete} from '../../../src/registry/manifests/completeness.ts';
import type {BlobLink, BlobRecord, ManifestRecord, ReferenceRecord} from '../../../src/storage/metadata.ts';

const APP = {registry: 'docker.io', name: parseName('library/app')};
const digestOf = (number: number): Digest => parseDigest(`sha256:${number.toString(16).padStart(64, '0')}`);
const numberOf = (digest: Digest): number => Number.parseInt(digest.slice(-8), 16);
const named =
  (kind: ReferenceRecord['kind']) =>
  (number: number): ReferenceRecord => ({digest: digestOf(number), size: 1, kind});
const manifests = (...numbers: number[]): ReferenceRecord[] => numbers.map(named('manifest'));
const blobs = (...numbers: number[]): ReferenceRecord[] => numbers.map(named('blob'));
const range = (length: number, start = 0): number[] => Array.from({length}, (_, index) => start + index);

interface StoredContent {
  /** What a manifest names; every manifest that is named is here. */
  names(manifest: number): ReferenceRecord[];
  /** Blobs whose bytes are here. */
  stored?(blob: number): boolean;
  /** Blobs that the repository is linked to. */
  linked?(blob: number): boolean;
  /** Of manifest 1. */
  bytes?: Buffer;
}

/** Checks whether manifest 1 is complete, and counts the reads. */
async function look({
  names,
  stored = () => true,
  linked = () => true,
  bytes = Buffer.alloc(0),
}: StoredContent) {
  const read: number[] = [];
  let turns = 0;
  let readInTurn = 0;
  let mostInTurn = 0;
  const count = (digest: Digest): number => {
    readInTurn += 1;
    mostInTurn = Math.max(mostInTurn, readInTurn);
    read.push(numberOf(digest));
    return numberOf(digest);
  };
  let ended = false;
  const watch = (): void => {
    turns += 1;
    readInTurn = 0;
    if (!ended) setImmediate(watch);
  };
  setImmediate(watch);
  const complete = await isComplete(
    {
      references: async (digest) => names(numberOf(digest)),
      manifest: async (_repository, digest) => {
        count(digest);
        const record: ManifestRecord = {
          digest,
          mediaType: '',
          bytes: Buffer.alloc(0),
          origin: 'upstream',
          linkedAt: 0,
        };
        return record;
      },
      blob: async (digest) => {
        const record: BlobRecord = {digest, size: 1, state: 'ready', storedAt: 0};
        return stored(count(digest)) ? record : undefined;
      },
      blobLink: async (_repository, digest) => {
        const link: BlobLink = {digest, size: 1, origin: 'upstream', linkedAt: 0};
        return linked(numberOf(digest)) ? link : undefined;
      },
    },
    APP,
    {digest: digestOf(1), bytes},
  );
  ended = true;
  return {complete, read, turns, mostInTurn};
}

test('an index with one complete child is complete, however deep the child is', async (t) => {
  const names = (manifest: number) => (manifest < 10 ? manifests(manifest + 1) : blobs(100));
  t.true((await look({names})).complete);
});

test('an index that repeats its children on four levels costs one look at each of them', async (t) => {
  const names = (manifest: number) =>
    manifest < 5 ? manifests(...range(20).map(() => manifest + 1)) : blobs(100);
  const {complete, read} = await look({names, stored: () => false});
  t.false(complete);
  t.is(read.length, 5);
});

test('indexes that name the same children cost one look at each child', async (t) => {
  const level = range(50, 2);
  const next = range(50, 100);
  const names = (manifest: number) => {
    if (manifest === 1) return manifests(...level);
    return manifest < 100 ? manifests(...next) : blobs(1000);
  };
  const {complete, read} = await look({names, linked: () => false});
  t.false(complete);
  t.is(read.length, level.length + next.length);
});

test('a manifest that names one blob ten thousand times costs one look at it', async (t) => {
  const {complete, read} = await look({names: () => blobs(...range(10_000).map(() => 7))});
  t.true(complete);
  t.is(read.length, 1);
});

test('beyond ten thousand descriptors nothing more is checked, and the manifest counts as incomplete', async (t) => {
  let next = 2;
  const names = () => manifests(...range(1000).map(() => next++));
  const {complete, read} = await look({names});
  t.false(complete);
  t.true(read.length <= 10_000);
  t.false((await look({names: () => blobs(...range(10_001))})).complete);
});

test('other work goes on while a large index is checked', async (t) => {
  const names = (manifest: number) =>
    manifest === 1 ? manifests(...range(1000, 2)) : blobs(10_000 + manifest);
  const {mostInTurn, turns} = await look({names, stored: () => false});
  t.true(mostInTurn <= 32, `${mostInTurn} reads in one turn`);
  t.true(turns >= 50);
});

test('blobs that only another repository is linked to do not make an image complete', async (t) => {
  const names = () => blobs(2, 3);
  t.true((await look({names})).complete);
  t.false((await look({names, linked: (blob) => blob !== 3})).complete);
});

test('beyond ten thousand descriptors, children that were named before are no longer checked', async (t) => {
  const names = (manifest: number) =>
    manifest === 1 ? manifests(...range(9000, 2)) : blobs(...range(1500, 10_000));
  const {complete, read} = await look({names, linked: () => false});
  t.false(complete);
  t.true(read.length < 10, `${read.length} reads`);
});

test('an attestation inside an index is not a platform: it does not make the index complete', async (t) => {
  const annotations = {'vnd.docker.reference.type': 'attestation-manifest'};
  const bytes = Buffer.from(
    JSON.stringify({
      manifests: [
        {digest: digestOf(2), size: 1},
        {digest: digestOf(3), size: 1, annotations},
      ],
    }),
  );
  const names = (manifest: number) => (manifest === 1 ? manifests(2, 3) : blobs(manifest * 100));
  t.false((await look({names, bytes, stored: (blob) => blob === 300})).complete);
  t.true((await look({names, bytes, stored: (blob) => blob === 200})).complete);
});
