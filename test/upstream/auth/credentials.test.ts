import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createCredentials} from '../../../src/upstream/auth/credentials.ts';
import type {Login} from '../../../src/upstream/auth/login.ts';
import {createManualClock} from '../../support/clock.ts';
import {writeScript} from '../../support/script.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {caller, createClient, failureOf, latest, MANIFEST_PATH, repository} from '../../support/upstream.ts';

async function folder(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'backref-credentials-'));
  t.teardown(() => rm(path, {recursive: true}));
  return path;
}

/** Credentials for `host` from a config.json with this content, with `helper` as docker-credential-test. */
async function read(
  t: ExecutionContext,
  host: string,
  config: unknown,
  helper?: string,
): Promise<Login | undefined> {
  const bin = await folder(t);
  const path = join(bin, 'config.json');
  await writeFile(path, typeof config === 'string' ? config : JSON.stringify(config));
  if (helper !== undefined) {
    writeScript(join(bin, 'docker-credential-test'), helper);
  }
  const env = {PATH: `${bin}:/usr/bin:/bin`};
  return createCredentials({kind: 'docker-config', path}, host, createManualClock(), env).read({});
}

const encoded = (text: string) => ({auth: Buffer.from(text).toString('base64')});
const basic = (username: string, password: string): Login => ({kind: 'basic', username, password});

test('without configuration, requests are anonymous', async (t) => {
  const credentials = createCredentials(undefined, 'ghcr.io', createManualClock(), {});
  t.is(await credentials.read({}), undefined);
  t.false(credentials.configured);
});

test('a config.json gives the credentials that its auths have for the host', async (t) => {
  const auths = {'ghcr.io': encoded('u:p:with:colons'), 'quay.io': {username: 'x', password: ''}};
  t.deepEqual(await read(t, 'ghcr.io', {auths}), basic('u', 'p:with:colons'));
  t.deepEqual(await read(t, 'quay.io', {auths}), basic('x', ''));
  t.is(await read(t, 'gcr.io', {auths}), undefined);
  t.is(await read(t, 'gcr.io', {}), undefined);
});

test('keys with a scheme and a path match', async (t) => {
  t.deepEqual(
    await read(t, 'r.example:5000', {auths: {'https://r.example:5000/v1/': encoded('u:p')}}),
    basic('u', 'p'),
  );
  t.is(await read(t, 'r.example', {auths: {'r.example:5000': encoded('u:p')}}), undefined);
});

test('Docker Hub is found under its old name', async (t) => {
  const auths = {'https://index.docker.io/v1/': encoded('u:p')};
  t.deepEqual(await read(t, 'registry-1.docker.io', {auths}), basic('u', 'p'));
});

test('an identity token comes before the rest of its entry', async (t) => {
  const auths = {'ghcr.io': {...encoded('u:p'), identitytoken: 'refresh'}};
  t.deepEqual(await read(t, 'ghcr.io', {auths}), {kind: 'identity-token', token: 'refresh'});
});

const ANSWER = `read server; echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"helper\\",\\"Secret\\":\\"for $server\\"}"`;

test("the host's credential helper is asked, else the general store", async (t) => {
  const credHelpers = {'ghcr.io': 'test'};
  t.deepEqual(
    await read(t, 'ghcr.io', {credHelpers, auths: {'ghcr.io': encoded('u:p')}}, ANSWER),
    basic('helper', 'for ghcr.io'),
  );
  t.deepEqual(await read(t, 'gcr.io', {credsStore: 'test'}, ANSWER), basic('helper', 'for gcr.io'));
  t.deepEqual(
    await read(t, 'registry-1.docker.io', {credsStore: 'test'}, ANSWER),
    basic('helper', 'for https://index.docker.io/v1/'),
  );
});

test('a helper may return an identity token', async (t) => {
  const answer = `echo '{"Username":"<token>","Secret":"refresh"}'`;
  t.deepEqual(await read(t, 'ghcr.io', {credsStore: 'test'}, answer), {
    kind: 'identity-token',
    token: 'refresh',
  });
});

test('auths are used when the helper has no entry', async (t) => {
  const config = {credsStore: 'test', auths: {'ghcr.io': encoded('u:p')}};
  const answer = 'echo "credentials not found in native keychain"; exit 1';
  t.deepEqual(await read(t, 'ghcr.io', config, answer), basic('u', 'p'));
  t.is(await read(t, 'quay.io', config, answer), undefined);
});

test('a helper that fails, is missing or prints invalid output is a failure that names it and not its output', async (t) => {
  const config = {credsStore: 'test'};
  for (const helper of ['echo hush; echo hush >&2; exit 3', 'echo hush', undefined]) {
    const failure = await failureOf(read(t, 'ghcr.io', config, helper));
    t.is(failure.kind, 'credentials');
    t.regex(failure.message, /docker-credential-test/);
    t.notRegex(`${failure.message}${failure.stack}`, /hush/);
  }
  t.regex((await failureOf(read(t, 'ghcr.io', {credsStore: '../evil'}))).message, /not a valid program name/);
});

test('a missing or malformed file is a failure that names it', async (t) => {
  const missing = createCredentials(
    {kind: 'docker-config', path: '/nowhere/config.json'},
    'a',
    createManualClock(),
    {},
  );
  t.like(await failureOf(missing.read({})), {
    kind: 'credentials',
    message: 'a: upstream.credentials: the file /nowhere/config.json cannot be read (ENOENT)',
  });
  t.regex((await failureOf(read(t, 'ghcr.io', '{"auths":'))).message, /config\.json/);
  t.regex((await failureOf(read(t, 'ghcr.io', {auths: []}))).message, /config\.json/);
});

test('a rotated file is read after some seconds, or at once after a refusal', async (t) => {
  const clock = createManualClock();
  const path = join(await folder(t), 'config.json');
  const write = (password: string) =>
    writeFile(path, JSON.stringify({auths: {'ghcr.io': encoded(`u:${password}`)}}));
  const credentials = createCredentials({kind: 'docker-config', path}, 'ghcr.io', clock, {});
  await write('1');
  t.deepEqual(await credentials.read({}), basic('u', '1'));
  await write('2');
  t.deepEqual(await credentials.read({}), basic('u', '1'));
  await clock.advance(5000);
  t.deepEqual(await credentials.read({}), basic('u', '2'));
  await write('3');
  credentials.forget();
  t.deepEqual(await credentials.read({}), basic('u', '3'));
});

test('an identity token is exchanged by POST as a refresh token', async (t) => {
  const path = join(await folder(t), 'config.json');
  const challenge = () => ({
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token",service="registry"`},
  });
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${MANIFEST_PATH}`, answer: challenge},
    {
      request: 'POST /token',
      sends: {'content-type': 'application/x-www-form-urlencoded', authorization: undefined},
      answer: {body: JSON.stringify({access_token: 'T1', expires_in: 300})},
    },
    {request: `HEAD ${MANIFEST_PATH}`, sends: {authorization: 'Bearer T1'}},
  ]);
  await writeFile(path, JSON.stringify({auths: {[upstream.host]: {identitytoken: 'refresh'}}}));
  const {client} = createClient(t, upstream.url, {credentials: {kind: 'docker-config', path}});
  t.truthy(await client.headManifest(repository, latest, caller));
  t.deepEqual(Object.fromEntries(new URLSearchParams(String(upstream.requests[1]?.body))), {
    grant_type: 'refresh_token',
    client_id: 'backref',
    service: 'registry',
    scope: 'repository:team/app:pull',
    refresh_token: 'refresh',
  });
});

test('an expired refresh token counts as refused credentials', async (t) => {
  const path = join(await folder(t), 'config.json');
  const challenge = () => ({
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token"`},
  });
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${MANIFEST_PATH}`, answer: challenge},
    {request: 'POST /token', answer: {status: 400, body: '{"error":"invalid_grant"}'}},
  ]);
  await writeFile(path, JSON.stringify({auths: {[upstream.host]: {identitytoken: 'refresh'}}}));
  const {client} = createClient(t, upstream.url, {credentials: {kind: 'docker-config', path}});
  for (const _ of [1, 2])
    t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'credentials');
});

test('an entry that cannot be read is an error, not an anonymous pull', async (t) => {
  for (const auth of ['me', '%%%', encoded('no colon').auth]) {
    const error = await failureOf(read(t, 'ghcr.io', {auths: {'ghcr.io': {auth}}}));
    t.is(error.kind, 'credentials');
    t.regex(error.message, /not the base64 of USER:PASSWORD/);
  }
  t.is(await read(t, 'ghcr.io', {auths: {'ghcr.io': {}}}), undefined);
});
