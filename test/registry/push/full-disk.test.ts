import test from 'ava';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {type Backref, startBackref} from '../../support/backref.ts';
import {contentOf, imageManifest, plainManifest, randomBlob} from '../../support/content.ts';
import {fillDisk} from '../../support/full-disk.ts';
import {errorOf, pusherTo} from '../../support/pusher.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';

const image = plainManifest();
const blob = randomBlob(3000);
const UPLOADS = '/v2/library/app/blobs/uploads/';
const hosted = {registries: [{library: false}]};

const send = (proxy: Backref, method: string, path: string, body: Buffer = Buffer.alloc(0), headers = {}) =>
  proxy.ask(path, {method, headers: {'Content-Length': body.length, ...headers}, body});

test('pushing a manifest to a full disk is 507, and succeeds once there is space', async (t) => {
  const proxy = await startBackref(t, hosted);
  const faults: unknown[] = [];
  proxy.server.events.on('request.fault', ({error}) => void faults.push(error));
  const {manifest, get} = pusherTo(proxy, 'app');
  const free = fillDisk(proxy.folder);
  const refused = await manifest(image, 'v1');
  t.is(refused.status, 507);
  t.is(errorOf(refused).code, 'UNKNOWN');
  t.regex(errorOf(refused).message, /^the disk is full: this registry has no space for it; free some/);
  t.is((await get('manifests/v1')).status, 404);
  t.deepEqual(faults, []);
  free();
  t.is((await manifest(image, 'v1')).status, 201);
  t.deepEqual((await get('manifests/v1')).body, image.bytes);
});

test('pushing a blob to a full disk is 507 and leaves no orphaned bytes', async (t) => {
  const proxy = await startBackref(t, hosted);
  const path = String((await send(proxy, 'POST', '/v2/app/blobs/uploads/')).headers.location);
  const free = fillDisk(proxy.folder);
  t.is((await send(proxy, 'PUT', `${path}?digest=${blob.digest}`, blob.bytes)).status, 507);
  t.is((await send(proxy, 'POST', '/v2/app/blobs/uploads/')).status, 507);
  t.is((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).status, 404);
  free();
  t.is((await send(proxy, 'PUT', `${path}?digest=${blob.digest}`, blob.bytes)).status, 201);
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
});

test('a deletion on a full disk is 507 and deletes nothing', async (t) => {
  const proxy = await startBackref(t, hosted);
  const {manifest, get, delete: remove} = pusherTo(proxy, 'app');
  await manifest(image, 'v1');
  fillDisk(proxy.folder);
  t.is((await remove('manifests/v1')).status, 507);
  t.is((await remove(`manifests/${image.digest}`)).status, 507);
  t.deepEqual((await get('manifests/v1')).body, image.bytes);
});

const begun: Expectation = {
  request: `POST ${UPLOADS}`,
  answer: {status: 202, headers: {Location: `${UPLOADS}one`}},
};

test('a child manifest that is fetched but cannot be stored is 507, not unknown', async (t) => {
  const layer = randomBlob(1000);
  const child = imageManifest([layer]);
  const index = plainManifest();
  const body = JSON.parse(index.bytes.toString());
  body.manifests.push({mediaType: child.mediaType, digest: child.digest, size: child.bytes.length});
  body.subject = {mediaType: child.mediaType, digest: child.digest, size: child.bytes.length};
  const bytes = Buffer.from(JSON.stringify(body));
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/library/app/manifests/${child.digest}`,
      answer: {headers: {'Content-Type': child.mediaType}, body: child.bytes},
    },
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'local'}]});
  fillDisk(proxy.folder);
  const headers = {'Content-Type': index.mediaType};
  const path = `/v2/app/manifests/${contentOf(bytes).digest}`;
  t.is((await send(proxy, 'PUT', path, bytes, headers)).status, 507);
});

test('a stored blob that cannot be linked is 507 for its manifest, not unknown', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/other/blobs/${blob.digest}`, answer: {body: blob.bytes}},
    {
      request: `HEAD /v2/library/app/blobs/${blob.digest}`,
      answer: {headers: {'Content-Length': '3000'}, body: []},
    },
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'local'}]});
  await proxy.ask(`/v2/other/blobs/${blob.digest}`);
  await proxy.idle();
  const named = {mediaType: 'application/x', digest: blob.digest, size: blob.bytes.length};
  const body = {schemaVersion: 2, mediaType: OCI_MANIFEST, config: named, layers: [], subject: named};
  const content = {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
  fillDisk(proxy.folder);
  t.is((await pusherTo(proxy, 'app').manifest(content)).status, 507);
});

test('a manifest that the upstream accepted and the full disk did not is 507', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: 'PUT /v2/library/app/manifests/v1', answer: {status: 201}, times: 2},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through'}]});
  const free = fillDisk(proxy.folder);
  const {manifest} = pusherTo(proxy, 'app');
  t.is((await manifest(image, 'v1')).status, 507);
  free();
  t.is((await manifest(image, 'v1')).status, 201);
});

test('a blob that the upstream accepted is 201 although no copy can be kept', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    begun,
    {request: new RegExp(`^PUT ${UPLOADS}one\\?digest=`), answer: {status: 201}},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through'}]});
  const path = String((await send(proxy, 'POST', '/v2/app/blobs/uploads/')).headers.location);
  const failed: string[] = [];
  proxy.server.events.on('background.failed', ({task}) => void failed.push(task));
  fillDisk(proxy.folder);
  t.is((await send(proxy, 'PUT', `${path}?digest=${blob.digest}`, blob.bytes)).status, 201);
  t.deepEqual(failed, [`keep the pushed blob ${blob.digest}`, 'keep that an upload has ended']);
});

test('an upload that cannot be recorded is cancelled at the upstream', async (t) => {
  for (const answer of [{status: 204}, {status: 405}, {status: 500}]) {
    const upstream = await createScriptedUpstream(t, [begun, {request: `DELETE ${UPLOADS}one`, answer}]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through'}]});
    fillDisk(proxy.folder);
    t.is((await send(proxy, 'POST', '/v2/app/blobs/uploads/')).status, 507);
    t.is(upstream.requests.length, 2);
  }
});

test('the upstream is asked for the offset after a chunk that could not be recorded', async (t) => {
  const state = {status: 202, headers: {Location: `${UPLOADS}one`, Range: '0-999'}};
  const upstream = await createScriptedUpstream(t, [
    begun,
    // Asked once, so that the upload's row is known to be current.
    {request: `GET ${UPLOADS}one`, answer: {status: 204, headers: {Location: `${UPLOADS}one`, Range: '0-0'}}},
    {request: `PATCH ${UPLOADS}one`, answer: state},
    {request: `GET ${UPLOADS}one`, answer: {...state, status: 204}},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through'}]});
  const path = String((await send(proxy, 'POST', '/v2/app/blobs/uploads/')).headers.location);
  t.is((await proxy.ask(path)).status, 204);
  const chunk = () => send(proxy, 'PATCH', path, blob.bytes.subarray(0, 1000), {'Content-Range': '0-999'});
  const free = fillDisk(proxy.folder);
  t.is((await chunk()).status, 507);
  free();
  const again = await chunk();
  t.is(again.status, 416);
  t.is(again.headers['range'], '0-999');
});
