import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS, type Caller} from '../../src/caller.ts';
import type {Tag} from '../../src/oci/name.ts';
import {createManualClock} from '../support/clock.ts';
import {blobAnswer, imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';
import {wireInProcess} from '../support/wired.ts';

const ALICE: Caller = {...ANONYMOUS, key: 'alice'};
const BOB: Caller = {...ANONYMOUS, key: 'bob'};
const blob = randomBlob(2000);
const image = imageManifest([blob]);
const v1 = 'v1' as Tag;
const PATH = '/v2/library/app';
const NO_CACHE = {noCache: false};
const ALL_TAGS = {n: undefined, last: undefined};

type WiredServer = Awaited<ReturnType<typeof start>>;

async function start(t: ExecutionContext, script: Expectation[]) {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const wired = await wireInProcess(t, {registries: [upstream], clock: createManualClock()});
  const route = wired.route('app');
  const {manifests, blobs, tagLists} = wired.verbs;
  const asks: Record<string, (caller: Caller) => Promise<unknown>> = {
    blob: (caller) => blobs.head(route, blob.digest, caller),
    manifest: (caller) => manifests.get(route, image.digest, caller, NO_CACHE),
    tag: (caller) => manifests.get(route, v1, caller, NO_CACHE),
    'list of tags': (caller) => tagLists.list(route, ALL_TAGS, caller, NO_CACHE),
  };
  return {upstream, asks};
}

const ask = ({asks}: WiredServer, what: string, caller: Caller): Promise<unknown> =>
  asks[what]?.(caller) ?? Promise.reject(new Error(`there is no way to ask for a ${what}`));

const LIST = JSON.stringify({name: 'library/app', tags: ['v1']});

/** Each request that a question leads to, and the answer of an upstream that has the content. */
const QUESTIONS = [
  [
    'blob',
    `HEAD ${PATH}/blobs/${blob.digest}`,
    {headers: {'Content-Length': String(blob.bytes.length)}, body: []},
  ],
  ['manifest', `GET ${PATH}/manifests/${image.digest}`, manifestAnswer(image)],
  ['tag', `GET ${PATH}/manifests/v1`, manifestAnswer(image)],
  [
    'list of tags',
    /^GET \/v2\/library\/app\/tags\/list/,
    {headers: {'Content-Type': 'application/json'}, body: LIST},
  ],
] as const;

for (const [what, request, answer] of QUESTIONS) {
  test(`that a ${what} does not exist for one caller is not an answer to another`, async (t) => {
    const wired = await start(t, [{request, answer: {status: 404}, times: 2}]);
    for (const caller of [ALICE, BOB]) {
      await t.throwsAsync(() => ask(wired, what, caller), {name: 'OciError'}, caller.key);
      // The same caller is not answered by a second question.
      await t.throwsAsync(() => ask(wired, what, caller), {name: 'OciError'}, caller.key);
    }
    t.is(wired.upstream.requests.length, 2);
  });

  test(`two callers who ask for a ${what} at once do not share a question; one caller's requests do`, async (t) => {
    const bothAsked = Promise.withResolvers<void>();
    let asked = 0;
    const wired = await start(t, [
      {
        request,
        times: 2,
        answer: () => {
          asked += 1;
          if (asked === 2) bothAsked.resolve();
          return {...answer, before: bothAsked.promise};
        },
      },
    ]);
    await Promise.all([ALICE, BOB, ALICE, BOB].map((caller) => ask(wired, what, caller)));
    t.is(wired.upstream.requests.length, 2);
  });
}

test('a caller who may not have a blob does not read the download that another one began', async (t) => {
  const underWay = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: `GET ${PATH}/blobs/${blob.digest}`, answer: {...blobAnswer(blob), before: underWay.promise}},
      {request: `HEAD ${PATH}/blobs/${blob.digest}`, answer: {status: 404}},
    ],
    {anyOrder: true},
  );
  const {route, verbs} = await wireInProcess(t, {registries: [upstream], clock: createManualClock()});
  const app = route('app');
  const alices = verbs.blobs.get(app, blob.digest, ALICE);
  await upstream.received(1);
  await t.throwsAsync(() => verbs.blobs.get(app, blob.digest, BOB), {
    name: 'OciError',
    message: /has no blob/,
  });
  underWay.resolve();
  t.is((await alices).size, blob.bytes.length);
});
