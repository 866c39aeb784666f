import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {type Digest, digestOf} from '../../../src/oci/digest.ts';
import {OCI_INDEX} from '../../../src/oci/media-type.ts';
import {parseName, parseTag} from '../../../src/oci/name.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {createManualClock} from '../../support/clock.ts';
import {contentOf, headAnswer, type ManifestContent, plainManifest} from '../../support/content.ts';
import {startLegacy} from '../../support/legacy.ts';
import {descriptorOf, fallbackTagOf, indexBytes, listAnswer, referrerOf} from '../../support/referrers.ts';
import {
  createScriptedUpstream,
  type Expectation,
  HANG,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';
import {startReconciler} from './reconciler.ts';

const image = plainManifest();
const PATH = `/v2/team/app/manifests/${fallbackTagOf(image)}`;
const GET = {request: `GET ${PATH}`, sends: {'cache-control': 'no-cache'}};
const PUT = {request: `PUT ${PATH}`, sends: {'content-type': OCI_INDEX}, answer: {status: 201}};
const ABSENT = {...GET, answer: {status: 404}};
const holding = (...entries: ManifestContent[]): Expectation => ({
  ...GET,
  answer: listAnswer(entries.map(descriptorOf)),
});

async function scripted(t: ExecutionContext, script: Expectation[], options = {}) {
  const upstream = await createScriptedUpstream(t, script);
  return {upstream, ...(await startReconciler(t, upstream.url, options))};
}

async function legacy(t: ExecutionContext, options = {}) {
  const registry = await startLegacy(t, image);
  const puts = () => registry.requests.filter((line) => line.startsWith('PUT')).length;
  return {registry, puts, ...(await startReconciler(t, registry.url, options))};
}

const writtenEntries = (body: Buffer | undefined): string[] =>
  JSON.parse(String(body)).manifests.map(({digest}: {digest: string}) => digest);

test('a change is pending until the tag has it, and watched until it can no longer be lost', async (t) => {
  const sbom = referrerOf(image);
  const {registry, attach, journal, later, puts, heard} = await legacy(t);
  await attach(sbom);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
  t.not((await journal())[0]?.writtenAt, undefined);
  for (const pause of [2000, 8000]) {
    await later(pause);
    t.is((await journal()).length, 1);
  }
  await later(50_000);
  t.deepEqual(await journal(), []);
  t.is(puts(), 1);
  t.deepEqual(heard, ['referrers.tag-written']);
});

test('an entry that a direct writer overwrites after our check is restored', async (t) => {
  const [ours, theirs] = [referrerOf(image), referrerOf(image)];
  const {registry, attach, journal, later} = await legacy(t);
  await attach(ours);
  const rewritten = listAnswer([descriptorOf(theirs)]).body as Buffer;
  await registry.put(fallbackTagOf(image), {bytes: rewritten, mediaType: OCI_INDEX});
  await later(2000);
  t.deepEqual(await registry.fallback(image.digest), [theirs.digest, ours.digest]);

  // Its time begins anew: the next one who overwrites it is noticed as well.
  await later(2000);
  await later(8000);
  await registry.put(fallbackTagOf(image), {bytes: rewritten, mediaType: OCI_INDEX});
  await later(50_000);
  t.deepEqual(await registry.fallback(image.digest), [theirs.digest, ours.digest]);
  t.is((await journal()).length, 1);
});

test('pending changes go to the upstream that the registry has after a reload', async (t) => {
  const sbom = referrerOf(image);
  const before = await scripted(t, [{...GET, answer: {status: 403}}]);
  const {attach, reconfigure, later, journal} = before;
  await attach(sbom);
  t.like(await journal(), [{writtenAt: undefined}]);
  const registry = await startLegacy(t, image);
  reconfigure(registry.url);
  await later(60_000);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
  t.not((await journal())[0]?.writtenAt, undefined);
});

test('pending changes of a repository that is not served any more wait in the journal until it is', async (t) => {
  const sbom = referrerOf(image);
  const {attach, reconfigure, reconciler, clock, later, journal} = await scripted(t, [
    {...GET, answer: {status: 403}},
  ]);
  await attach(sbom);
  const registry = await startLegacy(t, image);
  reconfigure(registry.url, {serves: () => false});
  await clock.advance(60_000);
  t.is(await registry.fallback(image.digest), undefined);
  t.like(await journal(), [{writtenAt: undefined}]);
  reconfigure(registry.url);
  reconciler.start();
  await later(0);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
});

test('all pending changes of one subject are written together', async (t) => {
  const {registry, attach, puts} = await legacy(t);
  const all = Array.from({length: 100}, () => referrerOf(image));
  await Promise.all(all.map(attach));
  t.deepEqual((await registry.fallback(image.digest))?.toSorted(), all.map(({digest}) => digest).toSorted());
  t.true(puts() < 20, `${puts()} writes`);
});

test('what others have written stays as it is, to the byte', async (t) => {
  const [ours, gone] = [referrerOf(image), referrerOf(image)];
  const other = `{ "digest" : "sha256:${'a'.repeat(64)}", "size": 1.0e2, "odd": [1, {"x": "]"}] }`;
  const text = (...entries: string[]) =>
    ` {"manifests":[${entries.join(',')}], "annotations": {"by": "them"}}\n`;
  const {registry, attach, deleted} = await legacy(t);
  const write = (body: string) =>
    registry.put(fallbackTagOf(image), {bytes: Buffer.from(body), mediaType: OCI_INDEX});
  const read = async () => String((await registry.get(fallbackTagOf(image)))?.bytes);
  await write(text(other, JSON.stringify(descriptorOf(gone))));
  await attach(ours);
  const own = JSON.stringify(descriptorOf(ours));
  t.is(await read(), text(other, JSON.stringify(descriptorOf(gone)), own));
  await deleted(gone);
  t.is(await read(), text(other, own));
});

test('the last referrer leaves an index without entries: not everybody may delete a tag', async (t) => {
  const sbom = referrerOf(image);
  const {registry, attach, deleted, journal} = await legacy(t);
  await attach(sbom);
  await deleted(sbom);
  t.deepEqual(await registry.fallback(image.digest), []);
  t.is((await journal())[0]?.change, 'remove');
});

test('a removal from a missing tag needs no write', async (t) => {
  const {deleted, puts, registry} = await legacy(t);
  await deleted(referrerOf(image));
  t.is(puts(), 0);
  t.is(await registry.fallback(image.digest), undefined);
});

test('a stale answer after our write does not cause another write', async (t) => {
  const [earlier, sbom] = [referrerOf(image), referrerOf(image)];
  const {attach, later, journal, upstream} = await scripted(t, [
    holding(earlier),
    PUT,
    // As GHCR for some five seconds.
    holding(earlier),
    holding(earlier),
    holding(earlier),
    holding(earlier, sbom),
  ]);
  await attach(sbom);
  t.is((await journal())[0]?.writtenAt, undefined);
  await later(200);
  await later(1000);
  await later(2000);
  t.not((await journal())[0]?.writtenAt, undefined);
  t.is(upstream.requests.filter(({method}) => method === 'PUT').length, 1);
});

test('a tag that stays what it was before our write is written again', async (t) => {
  const [earlier, sbom] = [referrerOf(image), referrerOf(image)];
  const {attach, later, journal} = await scripted(t, [
    holding(earlier),
    PUT,
    holding(earlier),
    holding(earlier),
    holding(earlier),
    holding(earlier),
    holding(earlier),
    PUT,
    holding(earlier, sbom),
  ]);
  await attach(sbom);
  for (const pause of [200, 1000, 2000, 10_000]) await later(pause);
  t.not((await journal())[0]?.writtenAt, undefined);
});

test('a direct writer between our read and our check does not cost our entry', async (t) => {
  const [ours, theirs] = [referrerOf(image), referrerOf(image)];
  const {attach, later, upstream} = await scripted(t, [
    ABSENT,
    PUT,
    holding(theirs),
    holding(theirs),
    PUT,
    holding(theirs, ours),
  ]);
  await attach(ours);
  await later(200);
  t.deepEqual(writtenEntries(upstream.requests[4]?.body), [theirs.digest, ours.digest]);
});

test('a tag that is not a list of referrers is never written, and its changes stay pending', async (t) => {
  const sbom = referrerOf(image);
  const other = referrerOf(plainManifest());
  const answers: ScriptedAnswer[] = [
    // GitLab resolves the tag to the subject itself.
    {headers: {'Content-Type': image.mediaType}, body: image.bytes},
    {headers: {'Content-Type': other.mediaType}, body: other.bytes},
    {headers: {'Content-Type': OCI_INDEX}, body: '{"manifests":[{}]}'},
  ];
  for (const answer of answers) {
    const {attach, later, journal, heard} = await scripted(t, [{...GET, answer, times: 2}]);
    await attach(sbom);
    await later(200);
    t.is((await journal())[0]?.writtenAt, undefined);
    t.deepEqual(heard, ['referrers.tag-unusable', 'referrers.tag-pending', 'referrers.tag-unusable']);
  }
});

test('an answer that is not a manifest is a failure of the upstream: the tag is read again and then written', async (t) => {
  const sbom = referrerOf(image);
  const page = {...GET, answer: {headers: {'Content-Type': OCI_INDEX}, body: '<html>'}, times: 4};
  const {attach, later, journal, heard} = await scripted(t, [page, ABSENT, PUT, holding(sbom)]);
  await attach(sbom);
  t.is((await journal())[0]?.writtenAt, undefined);
  await later(200);
  t.not((await journal())[0]?.writtenAt, undefined);
  t.false(heard.includes('referrers.tag-unusable'));
});

test('a tag whose bytes do not have the digest that the upstream names is not updated from them', async (t) => {
  const [ours, theirs] = [referrerOf(image), referrerOf(image)];
  const bytes = indexBytes([descriptorOf(theirs)]);
  const damaged = Buffer.from(bytes.toString().replace(theirs.digest.slice(-6), '000000'));
  const headers = {'Content-Type': OCI_INDEX, 'Docker-Content-Digest': digestOf(bytes)};
  const {upstream, attach, journal, later} = await scripted(t, [
    {...GET, answer: {headers, body: damaged}, times: 4},
  ]);
  await attach(ours);
  t.is((await journal())[0]?.writtenAt, undefined);
  upstream.expect(holding(theirs), PUT, holding(theirs, ours));
  await later(60_000);
  t.deepEqual(writtenEntries(upstream.requests[5]?.body), [theirs.digest, ours.digest]);
});

test('changes that an earlier process left pending are written by the next one, a few subjects at a time', async (t) => {
  const images = Array.from({length: 40}, plainManifest);
  const entries = images.map((subject) => referrerOf(subject));
  let most = 0;
  let open = 0;
  const tags = new Map<string, Buffer>();
  const upstream = await createScriptedUpstream(t, [
    {
      request: /^(GET|PUT) /,
      always: true,
      answer({method, url, body}) {
        open += 1;
        most = Math.max(most, open);
        const answered = new Promise((resolve) => setImmediate(resolve)).then(() => {
          open -= 1;
        });
        if (method === 'PUT') tags.set(url, body);
        const there = tags.get(url);
        if (method === 'PUT') return {status: 201, before: answered};
        if (!there) return {status: 404, before: answered};
        return {headers: {'Content-Type': OCI_INDEX}, body: there, before: answered};
      },
    },
  ]);
  const first = await startReconciler(t, upstream.url);
  for (const entry of entries) await first.pushed(entry);
  const {reconciler, journal} = await first.restart();
  reconciler.start();
  while ((await journal()).some(({writtenAt}) => writtenAt === undefined)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.is(tags.size, 40);
  t.true(most <= 8, `${most} at once`);
});

test('a subject whose lease another process holds is left to it, and taken over when the lease ends', async (t) => {
  const sbom = referrerOf(image);
  const {registry, attach, metadata, clock, later, puts} = await legacy(t);
  const key = `fallback-tag upstream.test/team/app@${image.digest}`;
  await metadata.commit([{type: 'lease.put', lease: {key, owner: 'another', until: clock.now() + 5000}}]);
  await attach(sbom);
  t.is(puts(), 0);
  for (const pause of [200, 1000, 2000]) await later(pause);
  t.is(puts(), 0);
  await later(10_000);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
});

test('two processes that attach to one subject lose nothing', async (t) => {
  const {registry, attach, metadata, clock, later} = await legacy(t);
  const other = await startReconciler(t, registry.url, {metadata, clock, owner: 'another'});
  const all = Array.from({length: 40}, () => referrerOf(image));
  await Promise.all(all.map((entry, index) => (index % 2 ? attach : other.attach)(entry)));
  while (((await registry.fallback(image.digest))?.length ?? 0) < all.length) {
    await clock.advance(2000);
    await Promise.race([later(0), other.later(0), new Promise((resolve) => setTimeout(resolve, 100))]);
  }
  t.deepEqual((await registry.fallback(image.digest))?.toSorted(), all.map(({digest}) => digest).toSorted());
});

test('a client waits two seconds for the tag, not longer; the update continues', async (t) => {
  const sbom = referrerOf(image);
  const {attach, clock, journal} = await scripted(t, [{...GET, answer: {before: HANG}}]);
  const attached = attach(sbom);
  await clock.sleeping();
  await clock.advance(2000);
  await attached;
  t.is((await journal())[0]?.writtenAt, undefined);
});

test('an upstream that cannot be reached is asked again at growing intervals', async (t) => {
  const sbom = referrerOf(image);
  const upstream = await createScriptedUpstream(t, [ABSENT, PUT, holding(sbom)]);
  const {attach, later, journal, heard} = await startReconciler(t, upstream.url);
  await upstream.stop();
  await attach(sbom);
  await later(200);
  t.is((await journal())[0]?.writtenAt, undefined);
  await upstream.start();
  await later(1000);
  t.not((await journal())[0]?.writtenAt, undefined);
  t.deepEqual(heard, [
    'referrers.tag-failed',
    'referrers.tag-pending',
    'referrers.tag-failed',
    'referrers.tag-written',
    'referrers.tag-pending',
  ]);
});

test('when the upstream turns out to list the referrer itself, nothing is pending and its tag is not written', async (t) => {
  const [sbom, second] = [referrerOf(image), referrerOf(image)];
  const API = `GET /v2/team/app/referrers/${image.digest}`;
  const {attach, later, journal} = await scripted(
    t,
    [
      {request: API, answer: {status: 429}},
      {request: API, answer: listAnswer([descriptorOf(sbom)])},
      {request: API, answer: listAnswer([descriptorOf(sbom)])},
      ABSENT,
      PUT,
      holding(second),
    ],
    {mode: 'auto'},
  );
  await attach(sbom);
  t.is((await journal())[0]?.writtenAt, undefined);
  await later(200);
  t.deepEqual(await journal(), []);
  // One that its list does not name may yet be looked for by the tag.
  await attach(second);
  t.not((await journal())[0]?.writtenAt, undefined);
});

test('a manifest that no longer exists gets no entry', async (t) => {
  const sbom = referrerOf(image);
  const {pushed, metadata, route, reconciler, journal, puts} = await legacy(t);
  await pushed(sbom);
  await metadata.commit([{type: 'manifest.delete', repository: route.repository, digest: sbom.digest}]);
  await reconciler.settle(route, image.digest, ANONYMOUS);
  t.deepEqual(await journal(), []);
  t.is(puts(), 0);
});

test('a question about the tag from before the write does not set it back here', async (t) => {
  const [earlier, sbom] = [referrerOf(image), referrerOf(image)];
  const before = {...contentOf(indexBytes([descriptorOf(earlier)])), mediaType: OCI_INDEX};
  const late = Promise.withResolvers<void>();
  const tag = parseTag(fallbackTagOf(image));
  const {tags, attach, metadata, route, upstream} = await scripted(t, [
    {request: `HEAD ${PATH}`, answer: {...headAnswer(before), before: late.promise}},
    holding(earlier),
    PUT,
    holding(earlier, sbom),
  ]);
  const {repository} = route;
  const {digest, bytes, mediaType} = before;
  const stored = {digest, bytes, mediaType, references: [], edge: undefined, origin: 'upstream' as const};
  await metadata.commit([{type: 'manifest.put', repository, at: 0, ...stored}]);
  const asked = tags.resolve(route, tag, ANONYMOUS, {noCache: false});
  await upstream.received(1);
  await attach(sbom);
  late.resolve();
  await asked.catch(() => {});
  t.is(await metadata.tag(repository, tag), undefined);
});

test('once the tag is written, its absence is no longer remembered', async (t) => {
  const sbom = referrerOf(image);
  const there = {...contentOf(indexBytes([descriptorOf(sbom)])), mediaType: OCI_INDEX};
  const {tags, attach, route} = await scripted(t, [
    {request: `HEAD ${PATH}`, answer: {status: 404}},
    ABSENT,
    PUT,
    holding(sbom),
    {request: `HEAD ${PATH}`, answer: headAnswer(there)},
  ]);
  const resolve = () => tags.resolve(route, parseTag(fallbackTagOf(image)), ANONYMOUS, {noCache: false});
  await t.throwsAsync(resolve(), {message: /has no manifest/});
  await attach(sbom);
  t.is((await resolve()).digest, there.digest as Digest);
});

test('entries of deleted manifests do not keep ours out of a tag whose registry refuses them', async (t) => {
  const [gone, there, sbom] = [referrerOf(image), referrerOf(image), referrerOf(image)];
  const odd = {mediaType: OCI_INDEX, digest: 'of another kind', size: 1};
  const refusal: ScriptedAnswer = {
    status: 400,
    headers: {'content-type': 'application/json'},
    body: JSON.stringify({errors: [{code: 'MANIFEST_BLOB_UNKNOWN', message: 'unknown'}]}),
  };
  const head = ({digest}: ManifestContent, status: number): Expectation => ({
    request: `HEAD /v2/team/app/manifests/${digest}`,
    answer: {status},
  });
  const before = [odd, descriptorOf(gone), descriptorOf(there)];
  const upstream = await createScriptedUpstream(
    t,
    [
      {...GET, answer: listAnswer(before)},
      {...PUT, answer: refusal},
      head(gone, 404),
      head(there, 200),
      head(sbom, 200),
      PUT,
      {...GET, answer: listAnswer([odd, descriptorOf(there), descriptorOf(sbom)])},
    ],
    {anyOrder: true},
  );
  const {attach, journal} = await startReconciler(t, upstream.url);
  await attach(sbom);
  t.not((await journal())[0]?.writtenAt, undefined);
  const put = upstream.requests.findLast(({method}) => method === 'PUT');
  t.deepEqual(writtenEntries(put?.body), [odd.digest, there.digest, sbom.digest]);
});

test('a refused index whose entries all exist is reported, and tried again', async (t) => {
  const [earlier, sbom] = [referrerOf(image), referrerOf(image)];
  const refusal: ScriptedAnswer = {
    status: 400,
    headers: {'content-type': 'application/json'},
    body: JSON.stringify({errors: [{code: 'MANIFEST_BLOB_UNKNOWN', message: 'unknown'}]}),
  };
  const {attach, later, journal, heard} = await scripted(t, [
    holding(earlier),
    {...PUT, answer: refusal},
    {request: /^HEAD /, times: 2},
    holding(earlier),
    PUT,
    holding(earlier, sbom),
  ]);
  await attach(sbom);
  t.deepEqual(heard, ['referrers.tag-failed', 'referrers.tag-pending']);
  await later(200);
  t.not((await journal())[0]?.writtenAt, undefined);
});

test('a tag that changed between our read and our write is read again where its registry can tell', async (t) => {
  const [earlier, theirs, sbom] = [referrerOf(image), referrerOf(image), referrerOf(image)];
  const tagged = (etag: string, ...entries: ManifestContent[]): Expectation => {
    const answer = listAnswer(entries.map(descriptorOf));
    return {...GET, answer: {...answer, headers: {...answer.headers, ETag: etag}}};
  };
  const {attach, later, upstream} = await scripted(t, [
    tagged('"1"', earlier),
    {...PUT, sends: {'if-match': '"1"'}, answer: {status: 412}},
    tagged('"2"', earlier, theirs),
    {...PUT, sends: {'if-match': '"2"'}},
    tagged('"3"', earlier, theirs, sbom),
  ]);
  await attach(sbom);
  await later(200);
  t.deepEqual(writtenEntries(upstream.requests[3]?.body), [earlier.digest, theirs.digest, sbom.digest]);
});

test('an ETag that does not match unchanged content is not used again', async (t) => {
  const [earlier, sbom] = [referrerOf(image), referrerOf(image)];
  const answer = listAnswer([descriptorOf(earlier)]);
  const before = {...GET, answer: {...answer, headers: {...answer.headers, ETag: '"x"'}}};
  const {attach, later, journal} = await scripted(t, [
    before,
    {...PUT, sends: {'if-match': '"x"'}, answer: {status: 412}},
    before,
    {...PUT, sends: {'if-match': undefined}},
    holding(earlier, sbom),
  ]);
  await attach(sbom);
  await later(200);
  t.not((await journal())[0]?.writtenAt, undefined);
});

test('a clock that is set back does not end the watch on a written change', async (t) => {
  const sbom = referrerOf(image);
  const {registry, attach, journal, restart} = await legacy(t);
  await attach(sbom);
  const clock = createManualClock(Date.UTC(2029, 0, 1));
  const next = await restart({clock});
  next.reconciler.start();
  const isAhead = async () => ((await journal())[0]?.writtenAt ?? 0) > clock.now();
  for (let turn = 0; turn < 1000 && (await isAhead()); turn++) await clock.advance(0);
  await registry.put(fallbackTagOf(image), {
    bytes: listAnswer([]).body as Buffer,
    mediaType: OCI_INDEX,
  });
  await next.later(2000);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
});

test('a journal that could not be read is read again a minute later', async (t) => {
  const sbom = referrerOf(image);
  const registry = await startLegacy(t, image);
  const faults: unknown[] = [];
  const {reconciler, pushed, clock} = await startReconciler(t, registry.url, {
    onFault: (error) => void faults.push(error),
    wrap: (real) => ({
      ...real,
      pendingTagChanges: async (after, limit) => {
        if (faults.length === 0) throw new Error('the disk is busy');
        return real.pendingTagChanges(after, limit);
      },
    }),
  });
  await pushed(sbom);
  reconciler.start();
  for (let turn = 0; turn < 1000 && faults.length === 0; turn++) await clock.advance(0);
  await clock.advance(0);
  await clock.advance(60_000);
  for (let turn = 0; turn < 1000 && !(await registry.fallback(image.digest)); turn++) await clock.advance(0);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
});

test('changes of another process are found behind more permanently pending ones than one sweep reads', async (t) => {
  const sbom = referrerOf(image);
  const registry = await startLegacy(t, image);
  const {reconciler, metadata, pushed, clock} = await startReconciler(t, registry.url);
  const left = {registry: 'mirror.test', name: parseName('no/longer/pushed/through')};
  await metadata.commit(
    Array.from({length: 12_000}, (_, index): Change => {
      const named = digestOf(Buffer.from(`${index}`));
      const entry = {repository: left, subject: named, digest: named, change: 'add', at: index} as const;
      return {type: 'tag-journal.put', entry: {...entry, writtenAt: undefined}};
    }),
  );
  reconciler.start();
  await clock.sleeping();
  await pushed(sbom);
  for (let minute = 1; minute <= 2; minute++) {
    t.is(await registry.fallback(image.digest), undefined);
    await clock.advance(60_000);
    await clock.sleeping();
  }
  for (let turn = 0; turn < 1000 && !(await registry.fallback(image.digest)); turn++) await clock.advance(0);
  t.deepEqual(await registry.fallback(image.digest), [sbom.digest]);
  t.is((await metadata.pendingTagChanges(undefined, 20_000)).length, 12_001, 'pending changes are kept');
});

test('a clock that is set back does not make a tag that somebody set back look like a stale answer', async (t) => {
  const [earlier, sbom] = [referrerOf(image), referrerOf(image)];
  const {registry, attach, reconciler, clock, route} = await legacy(t);
  const before = {bytes: indexBytes([descriptorOf(earlier)]), mediaType: OCI_INDEX};
  await registry.put(fallbackTagOf(image), before);
  await attach(sbom);
  await registry.put(fallbackTagOf(image), before);
  clock.moveWall(-3_600_000);
  await clock.advance(60_000);
  await reconciler.settle(route, image.digest as Digest, ANONYMOUS);
  t.deepEqual(await registry.fallback(image.digest), [earlier.digest, sbom.digest]);
});
