import {setImmediate as turn} from 'node:timers/promises';
import test from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import {createManualClock} from '../../support/clock.ts';
import {BREAK, createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';
import {
  BLOB_PATH,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  repository,
} from '../../support/upstream.ts';

const other = parseName('other/app');
const HEAD = 'HEAD /v2/team/app/manifests/latest';
const OTHER = {request: 'HEAD /v2/other/app/manifests/latest'};
const PING = 'GET /v2/';
const challenge = {status: 401, headers: {'www-authenticate': 'Bearer realm="https://127.0.0.1/token"'}};
const breaker = {failures: 3, openFor: 30_000};
const skipping = () => createManualClock(undefined, {skipBelow: 1000});

async function start(t: Parameters<typeof createClient>[0], script: Expectation[]) {
  const upstream = await createScriptedUpstream(t as never, script);
  const clock = skipping();
  const {client, heard} = createClient(t, upstream.url, {breaker}, {clock});
  const fail = async (times: number): Promise<void> => {
    for (let count = 0; count < times; count++)
      await failureOf(client.headManifest(repository, latest, caller));
  };
  const kind = async (name = repository) => (await failureOf(client.headManifest(name, latest, caller))).kind;
  const circuits = () => heard.flatMap((one) => (one.name === 'upstream.circuit' ? [one.event] : []));
  return {upstream, client, clock, fail, kind, circuits};
}

test('500s of one repository open its own circuit, and do not affect other repositories', async (t) => {
  const {upstream, client, clock, fail, circuits} = await start(t, [
    {request: HEAD, answer: {status: 500}, times: 12},
    OTHER,
  ]);
  await fail(3);
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.like(failure, {kind: 'open', retryAfter: 30_000});
  t.regex(failure.message, /: team\/app failed 3 times in a row/);
  t.truthy(await client.headManifest(other, latest, caller));
  t.like(circuits(), [{host: upstream.host, repository, state: 'open'}]);

  upstream.expect({request: HEAD});
  await clock.advance(30_000);
  t.truthy(await client.headManifest(repository, latest, caller));
  t.deepEqual(
    circuits().map(({state}) => state),
    ['open', 'half-open', 'closed'],
  );
});

for (const status of [502, 503, 504]) {
  test(`${status} from one repository does not open the host's circuit while its probe is answered`, async (t) => {
    const {client, fail, kind, circuits} = await start(t, [
      {request: HEAD, answer: {status}, times: 12},
      {request: PING, answer: challenge},
      OTHER,
    ]);
    await fail(3);
    t.is(await kind(), 'open');
    t.truthy(await client.headManifest(other, latest, caller));
    t.deepEqual(
      circuits().map((event) => event.repository),
      [repository],
    );
  });

  test(`${status} from the whole host opens its circuit for every repository`, async (t) => {
    const {fail, kind, circuits} = await start(t, [
      {request: HEAD, answer: {status}, times: 12},
      {request: PING, answer: {status}},
    ]);
    await fail(3);
    t.is(await kind(other), 'open');
    t.deepEqual(
      circuits().map((event) => event.repository),
      [repository, undefined],
    );
  });
}

test('broken connections do not open the circuit while the host answers its probe', async (t) => {
  const {client, fail, circuits} = await start(t, [
    {request: HEAD, answer: {before: BREAK}, times: 12},
    {request: PING, answer: challenge},
    OTHER,
    {request: HEAD},
  ]);
  await fail(3);
  t.truthy(await client.headManifest(other, latest, caller));
  t.truthy(await client.headManifest(repository, latest, caller));
  t.deepEqual(circuits(), []);
});

test('a host that is down is probed once, and then not asked until its circuit has been open for its time', async (t) => {
  const {upstream, client, clock, fail, kind, circuits} = await start(t, [OTHER]);
  t.truthy(await client.headManifest(other, latest, caller));
  await upstream.stop();
  await fail(3);
  t.is(await kind(), 'open');
  t.is(await kind(other), 'open');
  t.deepEqual(
    circuits().map(({repository, state}) => ({repository, state})),
    [{repository: undefined, state: 'open'}],
  );
  await upstream.start();
  upstream.expect(OTHER);
  await clock.advance(30_000);
  t.truthy(await client.headManifest(other, latest, caller));
});

test('a failing storage server affects only the repositories that redirect to it', async (t) => {
  const storage = await createScriptedUpstream(t, [{request: 'GET /blob', answer: {status: 503}, times: 12}]);
  const GET = `GET ${BLOB_PATH}`;
  const {client, circuits} = await start(t, [
    {request: GET, answer: {status: 307, headers: {location: `${storage.url}/blob`}}, times: 12},
    OTHER,
  ]);
  for (let count = 0; count < 3; count++) await failureOf(client.getBlob(repository, digest, caller));
  t.is((await failureOf(client.getBlob(repository, digest, caller))).kind, 'open');
  t.truthy(await client.headManifest(other, latest, caller));
  t.deepEqual(
    circuits().map((event) => event.repository),
    [repository],
  );
});

test("a repository that still fails when the host's circuit tries again does not keep it open for the others", async (t) => {
  const {upstream, client, clock, fail, kind, circuits} = await start(t, [
    {request: HEAD, answer: {status: 503}, times: 12},
    {request: PING, answer: {status: 503}},
  ]);
  await fail(3);
  t.is(await kind(other), 'open');
  // The host is up again; its first request is about the repository that still fails.
  upstream.expect(
    {request: HEAD, answer: {status: 503}, times: 4},
    {request: PING, answer: challenge},
    OTHER,
  );
  await clock.advance(30_000);
  await fail(1);
  const ofHost = () => circuits().filter((event) => event.repository === undefined);
  while (ofHost().at(-1)?.state === 'half-open') await turn();
  t.truthy(await client.headManifest(other, latest, caller));
});
