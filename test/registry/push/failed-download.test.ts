import test, {type ExecutionContext} from 'ava';
import {createClockWithoutPauses, startBackref} from '../../support/backref.ts';
import {blobAnswer, type Content, contentOf, imageManifest, randomBlob} from '../../support/content.ts';
import {errorOf, pusherTo} from '../../support/pusher.ts';
import {BREAK, createScriptedUpstream, type ScriptedAnswer} from '../../support/scripted-upstream.ts';

const config = contentOf(Buffer.from('{}'));
const layer = randomBlob(5000);
const NAME = 'team/app';

const headOf = ({bytes}: Content): ScriptedAnswer => ({
  headers: {'Content-Length': String(bytes.length)},
  body: [],
});

/** An overlay on an upstream that has the layer according to HEAD, but answers its GET with `failure`. */
async function over(t: ExecutionContext, failure: ScriptedAnswer, from = NAME) {
  const path = `/v2/${from}/blobs/${layer.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${path}`, answer: headOf(layer), always: true},
    {request: `GET ${path}`, answer: failure, always: true},
  ]);
  const backref = await startBackref(t, {
    registries: [{url: upstream.url, library: false, push: 'local', overlay: {tags: 'allow'}}],
    clock: createClockWithoutPauses(),
  });
  return {upstream, backref, ...pusherTo(backref, NAME)};
}

const FAILURES: [string, ScriptedAnswer][] = [
  ['is an error', {status: 500}],
  ['breaks off', {headers: {'Content-Length': '5000'}, before: BREAK}],
  ['has other bytes', blobAnswer(randomBlob(5000))],
  ['exceeds its rate limit', {status: 429, headers: {'Retry-After': '7'}}],
];

for (const [title, failure] of FAILURES) {
  test(`pushing a manifest is 503 when the upstream's GET of its layer ${title}`, async (t) => {
    const {blob, manifest, get} = await over(t, failure);
    t.is((await blob(config)).status, 201);
    const refused = await manifest(imageManifest([layer]), 'v1');
    t.is(refused.status, 503);
    t.is(errorOf(refused).code, 'UNAVAILABLE');
    t.truthy(refused.headers['retry-after']);
    t.is((await get(`blobs/${config.digest}`)).status, 200, 'the server still answers');
  });
}

test('mounting a blob of the upstream begins an upload when its GET fails', async (t) => {
  const {backref} = await over(t, {status: 500}, 'team/base');
  const path = `/v2/${NAME}/blobs/uploads/?mount=${layer.digest}&from=team/base`;
  const begun = await backref.ask(path, {method: 'POST'});
  t.is(begun.status, 202);
  t.is((await backref.ask(String(begun.headers['location']))).status, 204, 'the server still answers');
});
