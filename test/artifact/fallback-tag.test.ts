import test, {type ExecutionContext} from 'ava';
import {addToFallbackTag} from '../../src/artifact/attach.ts';
import {createRegistryTarget} from '../../src/artifact/registry-target.ts';
import {parseDigest} from '../../src/oci/digest.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName} from '../../src/oci/name.ts';
import {createManualClock} from '../support/clock.ts';
import {createScriptedUpstream, type Expectation, type ScriptedAnswer} from '../support/scripted-upstream.ts';
import {createClient} from '../support/upstream.ts';

const digestOf = (hex: string) => parseDigest(`sha256:${hex.repeat(64)}`);
const entry = (hex: string) => ({mediaType: OCI_MANIFEST, digest: digestOf(hex), size: 1});
const subject = digestOf('0');
const PATH = `/v2/team/app/manifests/sha256-${'0'.repeat(64)}`;
const GET = {request: `GET ${PATH}`, sends: {'cache-control': 'no-cache'}};
const PUT = {request: `PUT ${PATH}`, sends: {'content-type': OCI_INDEX}, answer: {status: 201}};

const holding = (...hexes: string[]): ScriptedAnswer => ({
  headers: {'content-type': OCI_INDEX},
  body: JSON.stringify({schemaVersion: 2, mediaType: OCI_INDEX, manifests: hexes.map(entry)}),
});

async function add(t: ExecutionContext, expectations: Expectation[]) {
  const upstream = await createScriptedUpstream(t, expectations);
  const target = createRegistryTarget(createClient(t, upstream.url).client, parseName('team/app'));
  const clock = createManualClock(undefined, {skipBelow: 10_000});
  const put = () =>
    upstream.requests
      .filter(({method}) => method === 'PUT')
      .map(({body}) =>
        JSON.parse(String(body))
          .manifests.map(({digest}: {digest: string}) => digest[7])
          .join(''),
      );
  return {done: addToFallbackTag(target, {subject, descriptor: entry('f')}, clock), put};
}

test('an absent tag is created, read again and found to be right', async (t) => {
  const {done, put} = await add(t, [{...GET, answer: {status: 404}}, PUT, {...GET, answer: holding('f')}]);
  await done;
  t.deepEqual(put(), ['f']);
});

test('a tag that already names the referrer is left alone', async (t) => {
  const {done, put} = await add(t, [{...GET, answer: holding('a', 'f')}]);
  await done;
  t.deepEqual(put(), []);
});

test('an entry that another writer has overwritten is added to what that writer wrote', async (t) => {
  const {done, put} = await add(t, [
    {...GET, answer: holding('a')},
    PUT,
    {...GET, answer: holding('a', 'b')},
    {...GET, answer: holding('a', 'b')},
    PUT,
    {...GET, answer: holding('a', 'b', 'f')},
  ]);
  await done;
  t.deepEqual(put(), ['af', 'afb']);
});

test('a stale answer does not lose an entry that was seen before', async (t) => {
  const {done, put} = await add(t, [
    {...GET, answer: holding('a', 'b')},
    PUT,
    {...GET, answer: holding('a')},
    {...GET, answer: holding('a')},
    PUT,
    {...GET, answer: holding('a', 'b', 'f')},
  ]);
  await done;
  t.deepEqual(put(), ['abf', 'abf']);
});

/** How often an answer that an upstream has spoiled is asked for. */
const ATTEMPTS = 4;

test('a tag that never keeps the entry is an error after five updates', async (t) => {
  const rounds = Array.from({length: 5}, () => [
    {...GET, answer: holding('a')},
    PUT,
    {...GET, answer: holding('a')},
  ]);
  const {done} = await add(t, rounds.flat());
  await t.throwsAsync(done, {name: 'ArtifactError', message: /does not keep its entry.*Attach it again/});
});

test('a tag that cannot be read is not written', async (t) => {
  for (const status of [403, 429, 500]) {
    const {done} = await add(t, [{...GET, answer: {status}, times: status === 500 ? ATTEMPTS : 1}]);
    await t.throwsAsync(done, {name: 'UpstreamFailure'});
  }
});

test('an index that cannot be read as one is not overwritten', async (t) => {
  const headers = {'content-type': OCI_INDEX};
  for (const body of ['{"schemaVersion":2}', '{"manifests":[1]}', '{"manifests":[{}]}']) {
    const {done} = await add(t, [{...GET, answer: {headers, body}}]);
    await t.throwsAsync(done, {name: 'ArtifactError', message: /It is left as it is/}, body);
  }
  for (const body of ['<html>', '{}', '{"manifests":{}}']) {
    const {done} = await add(t, [{...GET, answer: {headers, body}, times: ATTEMPTS}]);
    await t.throwsAsync(done, {name: 'UpstreamFailure', message: /not a manifest/}, body);
  }
});
