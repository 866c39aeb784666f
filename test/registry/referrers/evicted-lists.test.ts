import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {takeInventory} from '../../../src/registry/maintenance/inventory.ts';
import type {Metadata} from '../../../src/storage/metadata.ts';
import {UpstreamFailure} from '../../../src/upstream/port.ts';
import {createMovableClock} from '../../support/backref.ts';
import {type ManifestContent, plainManifest} from '../../support/content.ts';
import {pulledManifest} from '../../support/copies.ts';
import {descriptorOf, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../../support/scripted-upstream.ts';
import {wireInProcess} from '../../support/wired.ts';

const HOUR = 60 * 60_000;
const image = plainManifest();
const signature = referrerOf(image);
const {digest: subject} = image;
const {signal} = new AbortController();

/** A server whose upstream lists the image's referrers once, and then fails. */
async function setUp(
  t: ExecutionContext,
  first: ScriptedAnswer,
  failure: ScriptedAnswer,
  metadataFor = (real: Metadata): Metadata => real,
) {
  const request = `GET /v2/library/app/referrers/${subject}`;
  const upstream = await createScriptedUpstream(t, [
    {request, answer: first},
    {request, answer: failure, always: true},
  ]);
  const clock = createMovableClock();
  const {storage, referrers, maintenance, route} = await wireInProcess(t, {
    clock,
    metadata: metadataFor,
    registries: [
      {url: upstream.url, referrers: {mode: 'api'}, upstream: {breaker: {failures: 9, openFor: 1}}},
    ],
  });
  const {metadata} = storage;
  const app = route('app');
  const {repository} = app;
  return {
    clock,
    upstream,
    list: () =>
      referrers.referrers.list(app, subject, {types: undefined, after: undefined}, ANONYMOUS, {
        noCache: false,
      }),
    answer: () => referrers.lists.ready(app, subject, ANONYMOUS),
    pull: (manifest: ManifestContent) => metadata.commit([pulledManifest(repository, manifest, clock.now())]),
    async evict({digest}: ManifestContent): Promise<void> {
      const {evictor} = maintenance;
      const inventory = await takeInventory(metadata, await evictor.protection(), clock.now());
      const root = inventory.roots.find((each) => each.digest === digest);
      t.truthy(root && (await evictor.evict(inventory, root, {signal})));
    },
  };
}

test('an empty list from before a referrer was pulled does not come back when the referrer is evicted', async (t) => {
  const {clock, answer, pull, evict} = await setUp(t, listAnswer([]), {status: 503});
  await answer();
  await pull(signature);
  clock.move(HOUR);
  await evict(signature);
  await t.throwsAsync(answer(), {instanceOf: UpstreamFailure}, 'the list is unknown, not empty');
});

test('a list whose subject is evicted while the upstream is asked for it is unknown, not empty', async (t) => {
  const {promise, resolve} = Promise.withResolvers<void>();
  const {clock, upstream, answer, list, pull, evict} = await setUp(t, listAnswer([descriptorOf(signature)]), {
    status: 503,
    before: promise,
  });
  await pull(image);
  await answer();
  clock.move(HOUR);
  const stale = list();
  await upstream.received(2);
  await evict(image);
  resolve();
  await t.throwsAsync(stale, {code: 'UNAVAILABLE'});
});

test('a list whose subject is evicted between its date and its rows is asked for again', async (t) => {
  const races: (() => Promise<void>)[] = [];
  const whole = listAnswer([descriptorOf(signature)]);
  const {answer, list, pull, evict, clock} = await setUp(t, whole, whole, (real) => ({
    ...real,
    async referrerText(...page) {
      await races.pop()?.();
      return real.referrerText(...page);
    },
  }));
  await pull(image);
  await answer();
  clock.move(30_000);
  races.push(() => evict(image));
  const {body} = await list();
  t.deepEqual(races, []);
  t.like(JSON.parse(body.toString()), {manifests: [{digest: signature.digest}]});
});
