import test from 'ava';
import type {ArtifactTarget} from '../../src/artifact/target.ts';
import {treeOf} from '../../src/artifact/tree.ts';
import type {Descriptor} from '../../src/oci/descriptor.ts';
import {type Digest, parseDigest} from '../../src/oci/digest.ts';

const digestOf = (number: number) => parseDigest(`sha256:${number.toString(16).padStart(64, '0')}`);
const numberOf = (digest: Digest) => Number.parseInt(digest.slice(-8), 16);
const entry = (number: number): Descriptor => ({mediaType: 'x/y', digest: digestOf(number), size: 1});

/** A target that lists what a function says, and counts how often it was asked. */
function listing(referrers: (subject: number) => Descriptor[]) {
  const asked: number[] = [];
  const refuse = async () => undefined;
  const target: ArtifactTarget = {
    name: 'r.test/a',
    manifest: refuse,
    pushBlob: refuse,
    putManifest: refuse,
    close: refuse,
    async referrers(subject) {
      asked.push(numberOf(subject));
      return referrers(numberOf(subject));
    },
  };
  return {target, asked};
}

test('each level is followed, in the order of the lists', async (t) => {
  const {target} = listing((subject) => (subject < 4 ? [entry(subject * 2), entry(subject * 2 + 1)] : []));
  const shape = (nodes: Awaited<ReturnType<typeof treeOf>>): unknown[] =>
    nodes.map(({digest, referrers}) => [numberOf(digest), ...shape(referrers)]);
  t.deepEqual(shape(await treeOf(target, digestOf(1))), [
    [2, [4], [5]],
    [3, [6], [7]],
  ]);
});

test('a digest that is listed twice or in a cycle is requested once', async (t) => {
  const {target, asked} = listing((subject) => [entry(subject), entry(1), entry(2), entry(2), entry(3)]);
  await treeOf(target, digestOf(1));
  t.deepEqual(asked.sort(), [1, 2, 3]);
});

test('a registry that invents referrers without end is abandoned', async (t) => {
  const {target, asked} = listing((subject) => [entry(subject + 1)]);
  await t.throwsAsync(treeOf(target, digestOf(1)), {name: 'ArtifactError', message: /more than 32 levels/});
  t.true(asked.length <= 34);
});

test('what several lists of one level name is requested once', async (t) => {
  const {target, asked} = listing((subject) => {
    if (subject === 1) return Array.from({length: 10}, (_, index) => entry(10 + index));
    return subject < 100 ? [entry(100), entry(101)] : [];
  });
  await treeOf(target, digestOf(1));
  t.is(asked.length, 13);
});

test('a registry that invents more and more referrers on a few levels is abandoned', async (t) => {
  let next = 2;
  const {target, asked} = listing(() => Array.from({length: 10}, () => entry(next++)));
  await t.throwsAsync(treeOf(target, digestOf(1), undefined, 100), {
    name: 'ArtifactError',
    message: `r.test/a lists more than 100 referrers of referrers of ${digestOf(1)}.`,
  });
  t.true(asked.length <= 100);
});
