import test from 'ava';
import {OCI_INDEX} from '../../../src/oci/media-type.ts';
import {createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {plainManifest, sha256} from '../../support/content.ts';
import {descriptorOf, fallbackTagOf, indexBytes, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';

const image = plainManifest();
const sbom = referrerOf(image);
const API = `GET /v2/library/app/referrers/${image.digest}`;
const TAG = `/v2/library/app/manifests/${fallbackTagOf(image)}`;
const PATH = `/v2/app/manifests/${fallbackTagOf(image)}`;
const noTag = {request: `GET ${TAG}`, answer: {status: 404}, always: true as const};

test('an absent fallback tag is the synthesized index, the same each time, readable by its digest', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [
      noTag,
      {request: `HEAD ${TAG}`, answer: {status: 404}, optional: true},
      {request: API, answer: listAnswer([descriptorOf(sbom)])},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [upstream], clock: createMovableClock()});
  const got = await proxy.ask(PATH);
  t.is(got.status, 200);
  t.is(got.headers['content-type'], OCI_INDEX);
  t.is(got.headers['docker-content-digest'], sha256(got.body));
  t.deepEqual(got.json(), JSON.parse(indexBytes([descriptorOf(sbom)]).toString()));
  const head = await proxy.ask(PATH, {method: 'HEAD'});
  t.is(head.headers['docker-content-digest'], got.headers['docker-content-digest']);
  t.is(head.headers['content-length'], String(got.body.length));
  const byDigest = await proxy.ask(`/v2/app/manifests/${got.headers['docker-content-digest']}`);
  t.deepEqual(byDigest.body, got.body);
});

test('a fallback tag that the upstream has is passed on unchanged, and its entries join the index', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: `GET ${TAG}`, answer: listAnswer([{...descriptorOf(sbom), artifactType: 'wrong'}])},
      {
        request: `GET /v2/library/app/manifests/${sbom.digest}`,
        answer: {headers: {'Content-Type': sbom.mediaType}, body: sbom.bytes},
      },
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [upstream], clock: createMovableClock()});
  const got = await proxy.ask(PATH);
  t.like(got.json(), {manifests: [{artifactType: 'wrong'}]});
  await proxy.server.close();
});

test('404 only where it is known that there are no referrers, 503 where it is not', async (t) => {
  const upstream = await createScriptedUpstream(t, [noTag, {request: API, answer: {status: 500}, times: 4}], {
    anyOrder: true,
  });
  const proxy = await startBackref(t, {registries: [upstream], clock: createMovableClock()});
  t.is((await proxy.ask(PATH)).status, 503);
  upstream.expect({request: API, answer: listAnswer([])});
  t.is((await proxy.ask(PATH)).status, 404);
});

test('in an outage the fallback tag is the last known list', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [noTag, {request: API, answer: listAnswer([descriptorOf(sbom)])}],
    {
      anyOrder: true,
    },
  );
  const proxy = await startBackref(t, {registries: [upstream], clock: createMovableClock()});
  await proxy.ask(`/v2/app/referrers/${image.digest}`);
  await upstream.stop();
  proxy.clock.move(DAY);
  const got = await proxy.ask(PATH);
  t.is(got.status, 200);
  t.like(got.json(), {manifests: [{digest: sbom.digest}]});
  t.regex(String(got.headers.warning), /^299 /);
});

test('any other absent tag stays absent', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/sha256-abc', answer: {status: 404}},
    {request: `GET ${TAG}.sig`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: createMovableClock()});
  t.is((await proxy.ask('/v2/app/manifests/sha256-abc')).status, 404);
  t.is((await proxy.ask(`${PATH}.sig`)).status, 404);
});
