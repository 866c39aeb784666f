import test from 'ava';
import {buildReferrer, buildSmallImage, referrerDescriptor} from '../../chaos/catalog.ts';
import {type Exchange, STALLED} from '../../chaos/http-client.ts';
import {createJudge, type Excuse} from '../../chaos/judge.ts';
import {createModel} from '../../chaos/model.ts';
import {createTally} from '../../chaos/tally.ts';

const REGISTRY = 'apps.test';
const NONE: Excuse = {reason: undefined, isMangled: false, dying: false};
const UPSTREAM_FAILS: Excuse = {reason: 'the upstream fails', isMangled: false, dying: false};
const image = buildSmallImage('team/app', 'v1', 'judged');
const signature = buildReferrer(image, 'signature');
const [blob = image.manifest] = image.blobs;

const exchange = (
  status: number | undefined,
  body: Buffer | string = '',
  more: Partial<Exchange> = {},
): Exchange => ({
  method: 'GET',
  url: 'http://registry/asked',
  status,
  headers: {},
  body: Buffer.from(body),
  failure: status === undefined ? 'the connection was reset' : undefined,
  ...more,
});

const list = (...digests: object[]): string => JSON.stringify({schemaVersion: 2, manifests: digests});

function setUp() {
  const model = createModel([REGISTRY]);
  for (const artifact of [image, signature]) {
    model.pushing(REGISTRY, artifact);
    model.accepted(REGISTRY, artifact);
  }
  const tally = createTally(() => {});
  const judge = createJudge(tally);
  const repository = model.repository(REGISTRY, image.repository);
  const promises = () => tally.violations.map(({promise}) => promise);
  return {model, judge, repository, promises};
}

test('the right bytes, whole or up to where an excused answer broke off, violate nothing', (t) => {
  const {judge, repository, promises} = setUp();
  const half = blob.bytes.subarray(0, blob.bytes.length / 2);
  t.true(judge.blob(repository, blob.digest, exchange(200, blob.bytes), NONE));
  t.true(judge.manifest(repository, 'v1', exchange(200, image.manifest.bytes), NONE));
  t.false(judge.blob(repository, blob.digest, exchange(200, half, {failure: 'reset'}), UPSTREAM_FAILS));
  t.deepEqual(promises(), []);
});

test('other bytes are wrong, also in an answer that breaks off', (t) => {
  const {judge, repository, promises} = setUp();
  const flipped = Buffer.from(blob.bytes);
  flipped[0] = (flipped[0] ?? 0) ^ 1;
  judge.blob(repository, blob.digest, exchange(200, flipped), UPSTREAM_FAILS);
  judge.blob(
    repository,
    blob.digest,
    exchange(200, flipped.subarray(0, 10), {failure: 'reset'}),
    UPSTREAM_FAILS,
  );
  judge.blob(repository, blob.digest, exchange(200, blob.bytes.subarray(0, 10)), UPSTREAM_FAILS);
  judge.blob(repository, blob.digest, exchange(200, blob.bytes, {failure: 'reset'}), UPSTREAM_FAILS);
  t.deepEqual(promises(), ['wrong bytes', 'wrong bytes', 'wrong bytes', 'wrong bytes']);
});

test('wrong bytes of an upstream may be passed on, but never to the end', (t) => {
  const {judge, repository, promises} = setUp();
  const mangled = {...UPSTREAM_FAILS, isMangled: true};
  const wrong = Buffer.alloc(blob.bytes.length, 1);
  judge.blob(repository, blob.digest, exchange(200, wrong.subarray(1), {failure: 'reset'}), mangled);
  t.deepEqual(promises(), []);
  judge.blob(repository, blob.digest, exchange(200, wrong, {failure: 'reset'}), mangled);
  judge.blob(repository, blob.digest, exchange(200, wrong), mangled);
  t.deepEqual(promises(), ['wrong bytes', 'wrong bytes']);
});

test('404 for what the repository has is a failure reported as absence, whatever fails', (t) => {
  const {judge, repository, promises} = setUp();
  judge.blob(repository, blob.digest, exchange(404), UPSTREAM_FAILS);
  judge.manifest(repository, 'v1', exchange(404), UPSTREAM_FAILS);
  judge.referrers(repository, image.manifest.digest, exchange(404), UPSTREAM_FAILS);
  t.deepEqual(new Set(promises()), new Set(['failures reported as absence']));
  t.is(promises().length, 3);
});

test('404 for what a push may have brought violates nothing', (t) => {
  const {model, judge, repository, promises} = setUp();
  const interrupted = buildSmallImage('team/app', 'v2', 'interrupted');
  model.pushing(REGISTRY, interrupted);
  judge.manifest(repository, 'v2', exchange(404), NONE);
  for (const {digest} of interrupted.blobs) judge.blob(repository, digest, exchange(404), NONE);
  t.deepEqual(promises(), []);
});

test('a failure needs a reason', (t) => {
  const {judge, repository, promises} = setUp();
  for (const status of [503, 507, 429]) judge.blob(repository, blob.digest, exchange(status), UPSTREAM_FAILS);
  judge.blob(repository, blob.digest, exchange(undefined), UPSTREAM_FAILS);
  judge.blob(repository, blob.digest, exchange(undefined), {...NONE, dying: true});
  t.deepEqual(promises(), []);
  judge.blob(repository, blob.digest, exchange(503), NONE);
  judge.blob(repository, blob.digest, exchange(undefined), NONE);
  judge.blob(repository, blob.digest, exchange(undefined, '', {failure: STALLED}), UPSTREAM_FAILS);
  judge.blob(repository, blob.digest, exchange(500), UPSTREAM_FAILS);
  judge.blob(repository, blob.digest, exchange(401), UPSTREAM_FAILS);
  t.deepEqual(promises(), [
    'unavailable without a reason',
    'unavailable without a reason',
    'stalled requests',
    'answers that no failure explains',
    'answers that no failure explains',
  ]);
});

test('a list of referrers that lacks one is false, unless it says so and is not empty', (t) => {
  const {model, judge, repository, promises} = setUp();
  const second = buildReferrer(image, 'sbom');
  model.pushing(REGISTRY, second);
  model.accepted(REGISTRY, second);
  const subject = image.manifest.digest;
  const [one, two] = [signature, second].map(referrerDescriptor);
  const partial = {headers: {'cache-status': 'backref;fwd=miss;detail=partial'}};
  judge.referrers(repository, subject, exchange(200, list(one ?? {}, two ?? {})), NONE);
  judge.referrers(repository, subject, exchange(200, list(one ?? {}), partial), NONE);
  t.deepEqual(promises(), []);
  judge.referrers(repository, subject, exchange(200, list(one ?? {})), UPSTREAM_FAILS);
  judge.referrers(repository, subject, exchange(200, list()), UPSTREAM_FAILS);
  judge.referrers(repository, subject, exchange(200, list(), partial), UPSTREAM_FAILS);
  t.deepEqual(new Set(promises()), new Set(['falsely empty or short lists']));
  t.is(promises().length, 3);
});

test('content in a repository that does not have it is served without permission', (t) => {
  const {judge, promises} = setUp();
  judge.absent(exchange(404), NONE);
  judge.absent(exchange(503), UPSTREAM_FAILS);
  t.deepEqual(promises(), []);
  judge.absent(exchange(200, blob.bytes), UPSTREAM_FAILS);
  t.deepEqual(promises(), ['content served without permission']);
});
