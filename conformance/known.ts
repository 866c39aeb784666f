import type {Known} from './judge.ts';

const NO_TAG_DELETES = 'docker-registry 2.8 cannot delete a tag: it answers 400';
const NO_SHA512 =
  'docker-registry 2.8 stores manifests under their sha256 digest only: sha512 is not supported';
const FOREIGN_LAYERS =
  'docker-registry 2.8 answers 500 to a manifest with non-distributable layers, unless its configuration allows their URLs';

/** The number of tags that each group deletes. */
const TAGGED = {
  'image/delete/tag-delete': 1,
  'image-uncompressed/delete/tag-delete': 1,
  'large-manifest/delete/tag-delete': 1,
  'index/delete/tag-delete': 1,
  'nested-index/delete/tag-delete': 1,
  'empty-index/delete/tag-delete': 1,
  'artifact/delete/tag-delete': 1,
  'artifact-index/delete/tag-delete': 1,
  'artifact-without-layers/delete/tag-delete': 1,
  'artifacts-with-subject/delete/tag-delete': 3,
  'index-with-subject/delete/tag-delete': 2,
  'missing-subject/delete/tag-delete': 1,
  'data-field/delete/tag-delete': 1,
  'custom-fields/delete/tag-delete': 1,
  'no-layers/delete/tag-delete': 1,
};

/** Tests that fail with `push: through` to docker-registry 2.8, in either version of the suite. */
export const KNOWN_IN_BOTH: readonly Known[] = [
  {reason: NO_TAG_DELETES, verdict: 'skipped', tests: TAGGED},
  {
    reason: NO_SHA512,
    verdict: 'failed',
    tests: {
      'sha512/push/manifest-by-digest': 3,
      'sha512/head/manifest-head-by-digest': 3,
      'sha512/pull/manifest-by-digest': 3,
    },
  },
  {
    reason: FOREIGN_LAYERS,
    verdict: 'failed',
    tests: {
      'non-distributable-layers/push/manifest-by-digest': 1,
      'non-distributable-layers/push/manifest-by-tag': 1,
      'non-distributable-layers/tag-list': 1,
      'non-distributable-layers/head/manifest-head-by-tag': 1,
      'non-distributable-layers/head/manifest-head-by-digest': 1,
      'non-distributable-layers/pull/manifest-by-tag': 1,
      'non-distributable-layers/pull/manifest-by-digest': 1,
    },
  },
];

/** The same for tests that only the `dev` version of the suite has. */
export const KNOWN_IN_DEV: readonly Known[] = [
  {reason: NO_TAG_DELETES, verdict: 'skipped', tests: {'tag-param-sha256/delete/tag-delete': 4}},
  {
    reason: NO_SHA512,
    verdict: 'failed',
    tests: {
      'tag-param-sha512/push/manifest-by-digest': 3,
      // Images pushed by tag are stored under their sha256 digest, so the index, which lists their sha512 digests, is refused.
      'tag-param-sha512/push/manifest-by-tag': 4,
      'tag-param-sha512/tag-list': 1,
      'tag-param-sha512/head/manifest-head-by-tag': 4,
      'tag-param-sha512/head/manifest-head-by-digest': 3,
      'tag-param-sha512/pull/manifest-by-tag': 4,
      'tag-param-sha512/pull/manifest-by-digest': 3,
    },
  },
];
