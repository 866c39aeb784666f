import test from 'ava';
import {createManualClock} from '../../support/clock.ts';
import {
  createScriptedUpstream,
  type Expectation,
  type ScriptedUpstream,
} from '../../support/scripted-upstream.ts';
import {at, caller, createClient, failureOf, repository} from '../../support/upstream.ts';

const UPLOADS = '/v2/team/app/blobs/uploads/';
const SESSION = `${UPLOADS}7`;
const POST = `POST ${UPLOADS}`;
const PATCH = `PATCH ${SESSION}`;
const accepted = {status: 202, headers: {location: SESSION, range: '0-1'}};
const PUSH = 'repository:team/app:pull,push';

const bearer = (value: string) => ({authorization: `Bearer ${value}`});
const challenge = (upstream: ScriptedUpstream, scope = PUSH) => ({
  status: 401,
  headers: {'www-authenticate': `Bearer realm="${upstream.url}/token",service="s",scope="${scope}"`},
});
const token = (value: string, seconds: number, scope = PUSH): Expectation => ({
  request: `GET /token?service=s&scope=${encodeURIComponent(scope)}`,
  answer: {body: JSON.stringify({token: value, expires_in: seconds})},
});
const chunk = () => ({
  length: 2,
  range: undefined,
  bytes: (async function* () {
    yield Buffer.from('ab');
  })(),
});

test('a token with less than a minute left is renewed before bytes that cannot be sent again', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    {request: POST, answer: () => challenge(upstream)},
    token('one', 300),
    {request: POST, sends: bearer('one'), answer: accepted},
    {request: PATCH, sends: bearer('one'), answer: accepted},
    {request: POST, sends: bearer('one'), answer: accepted},
    token('two', 300),
    {request: PATCH, sends: bearer('two'), answer: accepted},
  );
  const {client} = createClient(t, upstream.url, {}, {clock});
  const append = () => client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  await client.beginUpload(repository, {}, caller);
  await append();
  await clock.advance(220_000);
  await client.beginUpload(repository, {}, caller);
  await append();
  t.pass();
});

test('a token with a life of less than a minute is renewed after half of its life, not each time', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    {request: POST, answer: () => challenge(upstream)},
    token('one', 40),
    {request: POST, sends: bearer('one'), answer: accepted},
    {request: PATCH, sends: bearer('one'), answer: accepted},
    token('two', 40),
    {request: PATCH, sends: bearer('two'), answer: accepted},
  );
  const {client} = createClient(t, upstream.url, {}, {clock});
  const append = () => client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  await client.beginUpload(repository, {}, caller);
  await append();
  await clock.advance(20_000);
  await append();
  t.pass();
});

test('a refused token is dropped: the failure says to send again, and then it works', async (t) => {
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    {request: POST, answer: () => challenge(upstream)},
    token('one', 300),
    {request: POST, sends: bearer('one'), answer: accepted},
    {request: PATCH, sends: bearer('one'), answer: () => challenge(upstream)},
    token('two', 300),
    {request: PATCH, sends: bearer('two'), answer: accepted},
  );
  const {client} = createClient(t, upstream.url);
  const append = () => client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  await client.beginUpload(repository, {}, caller);
  t.like(await failureOf(append()), {kind: 'status', retryAfter: 1000});
  t.like(await append(), {offset: 2});
});

test('a refused new token is a denial', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    {request: POST, answer: () => challenge(upstream)},
    token('one', 300),
    {request: POST, sends: bearer('one'), answer: accepted},
    token('two', 300),
    {request: PATCH, sends: bearer('two'), answer: () => challenge(upstream)},
  );
  const {client} = createClient(t, upstream.url, {}, {clock});
  await client.beginUpload(repository, {}, caller);
  await clock.advance(250_000);
  const sent = client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  t.is((await failureOf(sent)).kind, 'denied');
});

test('an upload that continues after a restart obtains its token before it sends bytes', async (t) => {
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    // GHCR names a placeholder scope here.
    {request: 'GET /v2/', answer: () => challenge(upstream, 'repository:user/image:pull')},
    token('one', 300),
    {request: 'GET /v2/', sends: bearer('one')},
    {request: PATCH, sends: bearer('one'), answer: accepted},
    {request: PATCH, sends: bearer('one'), answer: accepted},
  );
  const {client} = createClient(t, upstream.url);
  const append = () => client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  await append();
  t.like(await append(), {offset: 2});
});

test('with a user name and a password, a restart costs one request as well', async (t) => {
  const basic = {authorization: /^Basic /};
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/', answer: {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}}},
    {request: 'GET /v2/', sends: basic},
    {request: PATCH, sends: basic, answer: accepted},
  ]);
  const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;
  const {client} = createClient(t, upstream.url, {credentials});
  const sent = await client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  t.like(sent, {offset: 2});
});

test('an upstream that begins to require tokens is known to after the first refusal', async (t) => {
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    {request: POST, answer: accepted},
    {request: PATCH, sends: {authorization: undefined}, answer: () => challenge(upstream)},
    token('one', 300),
    {request: PATCH, sends: bearer('one'), answer: accepted},
  );
  const {client} = createClient(t, upstream.url);
  const append = () => client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunk(), caller);
  await client.beginUpload(repository, {}, caller);
  t.like(await failureOf(append()), {kind: 'status', retryAfter: 1000});
  t.like(await append(), {offset: 2});
});

test('an upload with a user name and a password does not delay other logins', async (t) => {
  const clock = createManualClock();
  const refusal = {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}};
  const upstream = await createScriptedUpstream(t, [
    {request: POST, answer: refusal},
    {request: POST, answer: accepted},
    {request: POST, answer: refusal},
    // A minute later it is no longer known whether the credentials work.
    {request: 'GET /v2/'},
    {request: POST, answer: accepted},
    {request: PATCH, answer: accepted},
  ]);
  const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;
  const {client} = createClient(t, upstream.url, {credentials}, {clock});
  const begin = () => client.beginUpload(repository, {}, caller);
  await begin();
  t.is((await failureOf(begin())).kind, 'credentials');
  await clock.advance(60_000);
  const asked = Promise.withResolvers<void>();
  const slow = Promise.withResolvers<void>();
  const bytes = (async function* () {
    asked.resolve();
    await slow.promise;
    yield Buffer.from('ab');
  })();
  const sent = client.appendUpload(
    repository,
    at(`${upstream.url}${SESSION}`),
    {length: 2, range: undefined, bytes},
    caller,
  );
  await asked.promise;
  await begin();
  slow.resolve();
  t.like(await sent, {offset: 2});
});
