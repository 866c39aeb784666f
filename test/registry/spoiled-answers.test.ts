import {createHash} from 'node:crypto';
import test, {type ExecutionContext} from 'ava';
import {mapConcurrently} from '../../src/concurrency.ts';
import type {Config} from '../../src/config.ts';
import {createMovableClock, startBackref, waiting} from '../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  imageManifest,
  type ManifestContent,
  manifestAnswer,
} from '../support/content.ts';
import {BREAK, createScriptedUpstream, type ScriptedAnswer} from '../support/scripted-upstream.ts';

const SEED = 1;
/** The share of the upstream's answers that are spoiled. */
const SPOILED = 0.3;
const CONCURRENCY = 20;

/** What an upstream, or what is between, makes of an answer. */
const SPOILERS: Record<string, (answer: Whole) => ScriptedAnswer> = {
  'a broken connection': () => ({before: BREAK}),
  'half of it': ({headers, body}) => ({
    headers: {...headers, 'Content-Length': String(body.length)},
    body: [body.subarray(0, body.length / 2), BREAK],
  }),
  'status 500': () => ({status: 500}),
  'status 503': () => ({status: 503}),
  'wrong bytes': ({headers, body}) => {
    const wrong = Buffer.from(body);
    wrong[wrong.length >> 1] = (wrong[wrong.length >> 1] ?? 0) ^ 1;
    return {headers, body: wrong};
  },
  'an HTML page': () => ({headers: {'Content-Type': 'text/html'}, body: '<html>be right back</html>'}),
};

type Whole = {headers: Record<string, string>; body: Buffer};

/** A number from 0 to 1 that depends only on what it is drawn for. */
const drawn = (...what: (string | number)[]): number =>
  createHash('sha256')
    .update(JSON.stringify([SEED, ...what]))
    .digest()
    .readUInt32BE() /
  2 ** 32;

interface Image {
  manifest: ManifestContent;
  blobs: Content[];
}

function imageOf(index: number): Image {
  const blob = (name: string, size: number) => contentOf(Buffer.alloc(size, `${name} ${index} `));
  const blobs = [
    blob('config', 1000),
    blob('layer', 3000),
    blob('layer', index % 10 === 0 ? 1_200_000 : 60_000),
  ];
  return {manifest: imageManifest(blobs), blobs};
}

/** Pulls so many images once each, their blobs at the same time. @param cache the server's settings of its cache */
async function pullCold(t: ExecutionContext, count: number, cache: Partial<Config['cache']>): Promise<void> {
  const images = Array.from({length: count}, (_, index) => imageOf(index));
  const answers = new Map<string, ScriptedAnswer>([['/v2/', {body: '{}'}]]);
  for (const [index, {manifest, blobs}] of images.entries()) {
    answers.set(`/v2/app/manifests/v${index}`, manifestAnswer(manifest));
    for (const blob of blobs) answers.set(`/v2/app/blobs/${blob.digest}`, blobAnswer(blob));
  }
  const asked = new Map<string, number>();
  const upstream = await createScriptedUpstream(t, [
    {
      request: /^(GET|HEAD) /,
      always: true,
      answer: ({url}) => {
        const answer = answers.get(url) ?? {status: 404};
        const time = (asked.get(url) ?? 0) + 1;
        asked.set(url, time);
        if (drawn('spoiled', url, time) >= SPOILED) return answer;
        const spoilers = Object.values(SPOILERS);
        const spoil = spoilers[Math.floor(drawn('how', url, time) * spoilers.length)];
        return spoil?.(answer as Whole) ?? answer;
      },
    },
  ]);
  const clock = waiting(createMovableClock(), (ms) => (ms < 2000 ? 1 : ms));
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, library: false}],
    config: {cache},
    clock,
  });
  const isPulled = async (path: string, {bytes}: Content): Promise<boolean> => {
    const got = await proxy.ask(path).catch(() => undefined);
    if (got?.status !== 200) return false;
    t.true(got.body.equals(bytes), path);
    return true;
  };
  let pulled = 0;
  await mapConcurrently([...images.entries()], CONCURRENCY, async ([index, {manifest, blobs}]) => {
    const all = await Promise.all([
      isPulled(`/v2/app/manifests/v${index}`, manifest),
      ...blobs.map((blob) => isPulled(`/v2/app/blobs/${blob.digest}`, blob)),
    ]);
    if (all.every(Boolean)) pulled += 1;
  });
  t.log(`${pulled} of ${count} images; ${upstream.requests.length} requests`);
  t.true(pulled / count >= 0.9, `${pulled} of ${count}`);
}

const TITLE =
  'behind an upstream that spoils 30 % of its answers, nine of ten cold images are pulled without a retry';

test(TITLE, (t) => pullCold(t, 200, {}));

test(`${TITLE}, also when the cache has no room for them`, (t) =>
  pullCold(t, 60, {maxSize: {bytes: 2 ** 20}}));
