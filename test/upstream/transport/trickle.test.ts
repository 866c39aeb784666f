import test, {type ExecutionContext} from 'ava';
import {createManualClock} from '../../support/clock.ts';
import {
  type BodyPart,
  createScriptedUpstream,
  type Expectation,
  HANG,
} from '../../support/scripted-upstream.ts';
import {
  BLOB_PATH,
  bytesOf,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  MANIFEST_TEXT,
  repository,
} from '../../support/upstream.ts';

const TAGS = 'GET /v2/team/app/tags/list?n=1000';
const REFERRERS = `GET /v2/team/app/referrers/${digest}`;
const INDEX = {'content-type': 'application/vnd.oci.image.index.v1+json'};

/** Long enough for a byte to be read before the next one is sent: both ends are in this process. */
const pause: BodyPart = {
  get wait() {
    return Array.fromAsync({length: 10}, () => new Promise(setImmediate));
  },
};

/** A body of white space, which is sent byte by byte, and this text. */
const trickle = (text: string): BodyPart[] => [
  ...Array.from({length: 200}, (): BodyPart[] => [' ', pause]).flat(),
  text,
];

/** A client whose clock advances five seconds each time it is read. */
async function hurried(t: ExecutionContext, script: readonly Expectation[]) {
  const upstream = await createScriptedUpstream(t, script);
  const clock = createManualClock(undefined, {skipBelow: 1000});
  let time = clock.monotonic();
  const monotonic = () => {
    time += 5000;
    return time;
  };
  const concurrency = {heads: 1, manifests: 1, bodies: 1};
  return {upstream, ...createClient(t, upstream.url, {concurrency}, {clock: {...clock, monotonic}})};
}

for (const [what, request, headers, text, ask] of [
  [
    'a manifest',
    `GET ${MANIFEST_PATH}`,
    INDEX,
    '{}',
    async ({getManifest}) => getManifest(repository, latest, caller),
  ],
  [
    'a page of a tag list',
    TAGS,
    {},
    '{"name": "team/app", "tags": []}',
    async ({listTags}) => listTags(repository, caller),
  ],
  [
    'a page of a list of referrers',
    REFERRERS,
    INDEX,
    '{"manifests": []}',
    async ({listReferrers}) => listReferrers(repository, digest, caller),
  ],
] satisfies [
  string,
  string,
  Record<string, string>,
  string,
  (client: ReturnType<typeof createClient>['client']) => Promise<unknown>,
][]) {
  test(`${what} that arrives byte by byte times out, although no byte is late`, async (t) => {
    const {client, heard} = await hurried(t, [{request, answer: {headers, body: trickle(text)}}]);
    const failure = await failureOf(ask(client));
    t.is(failure.kind, 'timeout');
    t.regex(failure.message, /sends the body too slowly: only \d+ bytes in \d+ ms$/);
    t.true(heard.some(({name}) => name === 'upstream.failed'));
  });
}

test('a token that arrives byte by byte times out, and the next request obtains another', async (t) => {
  const GET = `GET ${MANIFEST_PATH}`;
  const token = /^GET \/token\?/;
  const {client, upstream} = await hurried(t, []);
  const challenge = {
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token",service="registry"`},
  };
  upstream.expect(
    {request: GET, answer: challenge},
    {request: token, answer: {body: trickle('{"token": "T1"}')}},
    {request: GET, answer: challenge},
    {request: token, answer: {body: '{"token": "T2"}'}},
    {request: GET, sends: {authorization: 'Bearer T2'}, answer: {headers: INDEX, body: MANIFEST_TEXT}},
  );
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'timeout');
  t.is(String((await client.getManifest(repository, latest, caller))?.bytes), MANIFEST_TEXT);
});

test('a refusal whose reason arrives byte by byte is reported without the reason', async (t) => {
  const body = trickle('{"errors": [{"code": "DENIED", "message": "because"}]}');
  const {client} = await hurried(t, [
    {
      request: `DELETE ${MANIFEST_PATH}`,
      answer: {status: 405, headers: {'content-type': 'application/json'}, body},
    },
  ]);
  t.regex((await failureOf(client.deleteManifest(repository, latest, caller))).message, /\(405\)$/);
});

test('an unwanted body that arrives byte by byte does not hold its connection', async (t) => {
  const {client} = await hurried(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 404, body: [...trickle(''), HANG]}},
    {request: `GET ${MANIFEST_PATH}`, answer: {headers: INDEX, body: MANIFEST_TEXT}},
  ]);
  t.is(await client.getManifest(repository, latest, caller), undefined);
  t.is(String((await client.getManifest(repository, latest, caller))?.bytes), MANIFEST_TEXT);
});

test('a blob, which is passed on as it arrives, may take its time', async (t) => {
  const {client} = await hurried(t, [{request: `GET ${BLOB_PATH}`, answer: {body: trickle('end')}}]);
  t.is((await bytesOf(await client.getBlob(repository, digest, caller))).length, 203);
});

test('a body that arrives fast enough is read, however long it is', async (t) => {
  const clock = createManualClock();
  const size = 4 * 1024 * 1024;
  const text = `{"schemaVersion":2,"annotations":{"a":"`.padEnd(size - 3, 'x').concat('"}}');
  const halves = [text.slice(0, size / 2), text.slice(size / 2)] as const;
  const wait = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET ${MANIFEST_PATH}`,
      answer: {headers: INDEX, body: [halves[0], {wait: wait.promise}, halves[1]]},
    },
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const reading = client.getManifest(repository, latest, caller);
  await upstream.received(1);
  wait.resolve();
  t.is((await reading)?.bytes.length, size);
});

for (const [what, first, page, ask] of [
  ['tags', TAGS, {body: '{"tags": []}', headers: {}}, 'listTags'],
  ['referrers', REFERRERS, {body: '{"manifests": []}', headers: INDEX}, 'listReferrers'],
] as const) {
  test(`a list of ${what} whose pages together take half an hour times out`, async (t) => {
    const clock = createManualClock();
    let time = clock.monotonic();
    let count = 0;
    const answer = () => {
      time += 7 * 60_000;
      count += 1;
      return {...page, headers: {...page.headers, link: `</v2/team/app/next?page=${count}>; rel="next"`}};
    };
    const upstream = await createScriptedUpstream(t, [
      {request: first, answer},
      {request: /^GET \/v2\/team\/app\/next\?page=/, answer, times: 4},
    ]);
    const {client} = createClient(t, upstream.url, {}, {clock: {...clock, monotonic: () => time}});
    const work =
      ask === 'listTags'
        ? client.listTags(repository, caller)
        : client.listReferrers(repository, digest, caller);
    const failure = await failureOf(work);
    t.is(failure.kind, 'timeout');
    t.regex(failure.message, /sent only 5 pages of its .* in 2100000 ms, and there are more$/);
  });
}
