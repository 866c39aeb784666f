import {rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {hashSync} from '@node-rs/bcrypt';
import test, {type ExecutionContext} from 'ava';
import type {Action} from '../../src/caller.ts';
import type {Verbs} from '../../src/http/routes.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName} from '../../src/oci/name.ts';
import {HIT} from '../../src/registry/freshness.ts';
import type {Manifests} from '../../src/registry/manifests/manifests.ts';
import {repeatOf, type Served} from '../../src/registry/repeat.ts';
import {createMovableClock, startBackref} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';
import {createSigningKey, issuerConfig, signToken, startIssuer} from '../support/issuer.ts';
import {wireInProcess} from '../support/wired.ts';
import {ask, startHttpServer} from './http-server.ts';
import {openWay, WAYS} from './ways.ts';

const bytes = Buffer.from('{"schemaVersion":2}');
const digest = digestOf(bytes);
const PATH = `/v2/app/manifests/${digest}`;
const SERVED: Served = {
  kind: 'manifest',
  registry: 'docker.io',
  repository: parseName('app'),
  digest,
  isUse: true,
};
const key = await createSigningKey('one');
const hashOf = (password: string): string => hashSync(password, 4);
const basic = (username: string, secret: string): string =>
  `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;

const RULES = [
  {who: ['user:*', 'robot:*', 'gha:repository=org/*'], where: ['docker.io/**'], may: ['pull' as const]},
];
const CI = {name: 'ci', may: ['pull' as Action], on: ['docker.io/**'], expiresIn: undefined};

interface Options {
  htpasswd?: string;
  issuers?: ReturnType<typeof issuerConfig>[];
  isOpen?: boolean;
}

/** Real logins before one manifest that may always be given again, and which counts how often it is asked for. */
async function start(t: ExecutionContext, {htpasswd, issuers = [], isOpen = false}: Options) {
  const clock = createMovableClock();
  const path = join(await createFolder(t), 'htpasswd');
  if (htpasswd !== undefined) await writeFile(path, htpasswd);
  const users = {htpasswd: htpasswd === undefined ? undefined : path};
  const access = {users, issuers, ...(isOpen ? {} : {rules: RULES})};
  const wired = await wireInProcess(t, {clock, registries: [{push: 'local'}], config: {access}});
  const {identity, verbs, content, generations, registries, events} = wired;
  await Promise.all([identity.robots.load(), identity.users.refresh()]);
  const counts = {asked: 0, accepted: 0};
  events.on('login.accepted', () => {
    counts.accepted += 1;
  });
  const get = async () => {
    counts.asked += 1;
    const generation = generations.ofRepository(wired.route('app').repository);
    const repeat = repeatOf(HIT, {content: [generation]}, SERVED);
    return {digest, mediaType: 'application/json', size: bytes.length, bytes, report: HIT, repeat};
  };
  const manifests = {get, head: get} as unknown as Manifests;
  const {port} = await startHttpServer(t, {
    verbs: {...verbs, manifests} as Verbs,
    access: content.access,
    authenticator: identity.authenticator,
    loginPlace: identity.loginPlace,
    ownLogins: identity.ownLogins,
    registries,
    generations,
    clock,
  });
  const statusOf = async (authorization: string) =>
    (await ask(port, 'GET', PATH, undefined, {Authorization: authorization, Connection: 'keep-alive'}))
      .status;
  const tokenFor = async (authorization: string) => {
    const scope = '/token?service=backref&scope=repository:app:pull';
    const {body} = await ask(port, 'GET', scope, undefined, {Authorization: authorization});
    return `Bearer ${JSON.parse(body.toString()).token}`;
  };
  /** Fails unless the second of two requests is answered without asking. */
  const prepare = async (authorization: string) => {
    t.is(await statusOf(authorization), 200);
    const {asked} = counts;
    t.is(await statusOf(authorization), 200);
    t.is(counts.asked, asked, 'the answer was not prepared');
  };
  return {identity, clock, counts, path, statusOf, tokenFor, prepare};
}

const ALICE = basic('alice', 'right');
const USERS = `alice:${hashOf('right')}\nbob:${hashOf('his')}\n`;
const BOB_ALONE = `bob:${hashOf('his')}\n`;

test('a password is not checked again while nothing changed, and each request is reported as a login', async (t) => {
  const {prepare, counts} = await start(t, {htpasswd: USERS});
  await prepare(ALICE);
  t.is(counts.accepted, 2);
});

test('a password counts no longer than until a check would look whether the file has changed', async (t) => {
  const {prepare, path, clock, statusOf, counts} = await start(t, {htpasswd: USERS});
  await prepare(ALICE);
  clock.move(1000);
  await prepare(ALICE);
  t.is(counts.asked, 2);
  await writeFile(path, BOB_ALONE);
  clock.move(1000);
  t.is(await statusOf(ALICE), 401);
});

test('a file of users that was read anew ends the logins by password and their tokens at once', async (t) => {
  const {prepare, path, identity, statusOf, tokenFor} = await start(t, {htpasswd: USERS});
  const token = await tokenFor(ALICE);
  await prepare(ALICE);
  await prepare(token);
  await writeFile(path, `alice:${hashOf('another')}\nbob:${hashOf('his')}\n`);
  await identity.users.refresh();
  t.is(await statusOf(ALICE), 401);
  t.is(await statusOf(token), 401);
});

test('the login of one user that finds the file changed ends those of the others', async (t) => {
  const {prepare, path, clock, statusOf, tokenFor} = await start(t, {htpasswd: USERS});
  const token = await tokenFor(ALICE);
  await prepare(token);
  await writeFile(path, BOB_ALONE);
  clock.move(1000);
  t.is(await statusOf(basic('bob', 'his')), 200);
  t.is(await statusOf(token), 401);
});

test('a token counts until it expires, also when the clock is set back', async (t) => {
  const {prepare, clock, statusOf, tokenFor, counts} = await start(t, {htpasswd: USERS});
  const token = await tokenFor(ALICE);
  await prepare(token);
  t.is(counts.accepted, 1, 'tokens of this server are not reported');
  clock.moveWall(-5000);
  await prepare(token);
  t.is(counts.asked, 2);
  clock.moveWall(60 * 60_000);
  t.is(await statusOf(token), 401);
});

for (const [title, of] of [
  ['password', (secret: string) => basic('x', secret)],
  ['bearer token', (secret: string) => `Bearer ${secret}`],
] as const) {
  test(`the secret of a robot as a ${title} counts until the robot is revoked`, async (t) => {
    const {prepare, identity, statusOf, tokenFor} = await start(t, {});
    const {secret} = await identity.robots.create(CI);
    const token = await tokenFor(of(secret));
    await prepare(of(secret));
    await prepare(token);
    await identity.robots.revoke('ci');
    t.is(await statusOf(of(secret)), 401);
    t.is(await statusOf(token), 401);
  });

  test(`the secret of a robot as a ${title} counts until the robot expires`, async (t) => {
    const {prepare, identity, clock, statusOf, tokenFor} = await start(t, {});
    const {secret} = await identity.robots.create({...CI, expiresIn: 30_000});
    const token = await tokenFor(of(secret));
    await prepare(of(secret));
    await prepare(token);
    clock.move(30_000);
    t.is(await statusOf(of(secret)), 401);
    t.is(await statusOf(token), 401);
  });

  test(`each answer to a robot that shows its ${title} is a use of the robot`, async (t) => {
    const {prepare, identity, clock, statusOf, tokenFor} = await start(t, {});
    const {secret} = await identity.robots.create(CI);
    const lastUsed = async () => (await identity.robots.list()).robots[0]?.lastUsed;
    for (const authorization of [of(secret), await tokenFor(of(secret))]) {
      await prepare(authorization);
      clock.move(5000);
      t.is(await statusOf(authorization), 200);
      t.is(await lastUsed(), new Date(clock.now()).toISOString());
    }
  });
}

test('a credential that is not read while nobody can log in is refused once somebody can', async (t) => {
  const {prepare, identity, statusOf} = await start(t, {isOpen: true});
  await prepare(basic('docker', 'hub'));
  await prepare('Digest nonsense');
  await identity.robots.create(CI);
  t.is(await statusOf(basic('docker', 'hub')), 401);
  t.is(await statusOf('Digest nonsense'), 401);
});

/** Tokens of one issuer, whose keys are at its URL, or in a file. */
async function startWithIssuer(t: ExecutionContext, inFile: boolean) {
  const issuer = await startIssuer(t);
  const file = join(await createFolder(t), 'keys.json');
  const answerKeys = (keys: object[]) =>
    inFile ? writeFile(file, JSON.stringify({keys})) : issuer.answerKeys({keys});
  await answerKeys([key.jwk]);
  const config = issuerConfig(issuer.url, inFile ? {jwks: file} : {});
  const server = await start(t, {issuers: [config]});
  const now = server.clock.now() / 1000;
  const token = await signToken(key, issuer.url, {iat: now, nbf: now, exp: now + 300, repository: 'org/app'});
  const shown = `Bearer ${token}`;
  t.is(await server.statusOf(shown), 200, 'the keys are read with the first token');
  return {...server, answerKeys, file, shown};
}

test('the token of an issuer counts until it expires', async (t) => {
  const {prepare, clock, counts, statusOf, shown} = await startWithIssuer(t, false);
  await prepare(shown);
  t.is(counts.accepted, 3);
  clock.move(331_000);
  t.is(await statusOf(shown), 401);
});

test('the token of an issuer counts until its keys were read again', async (t) => {
  const {prepare, clock, identity, statusOf, tokenFor, answerKeys, shown} = await startWithIssuer(t, false);
  const token = await tokenFor(shown);
  await prepare(shown);
  await prepare(token);
  await answerKeys([(await createSigningKey('two')).jwk]);
  clock.move(10_000);
  for (const {task, work} of identity.upkeep) if (task.includes('issuers')) await work();
  t.is(await statusOf(shown), 401);
  t.is(await statusOf(token), 200, 'it was issued for a login that was valid');
});

test('neither keys in a file nor a password count for longer when the clock was set back', async (t) => {
  const issued = await startWithIssuer(t, true);
  await issued.prepare(issued.shown);
  issued.clock.moveWall(-200_000);
  await issued.answerKeys([(await createSigningKey('two')).jwk]);
  issued.clock.move(200_000);
  t.is(await issued.statusOf(issued.shown), 401);
  const {prepare, path, clock, statusOf} = await start(t, {htpasswd: USERS});
  await prepare(ALICE);
  clock.moveWall(-4000);
  await writeFile(path, BOB_ALONE);
  clock.move(4500);
  t.is(await statusOf(ALICE), 401);
});

test('the keys of an issuer in a file are looked at as often as without prepared answers', async (t) => {
  const {prepare, clock, statusOf, answerKeys, file, shown} = await startWithIssuer(t, true);
  await prepare(shown);
  await answerKeys([(await createSigningKey('two')).jwk]);
  clock.move(9000);
  t.is(await statusOf(shown), 200);
  clock.move(2000);
  t.is(await statusOf(shown), 401);
  await rm(file);
});

for (const way of WAYS) {
  test(`the API challenges who has not logged in from when the first robot is made: ${way}`, async (t) => {
    const proxy = await startBackref(t, {registries: [{}]});
    const text = `GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1:${proxy.port}\r\n\r\n`;
    const {ask: askFirst} = await openWay(t, proxy.port, 'table');
    for (let time = 0; time < 3; time += 1) t.regex(await askFirst(text), /^HTTP\/1\.1 200/);
    await (await proxy.server.commands()).createRobot(CI);
    const {ask: askThen} = await openWay(t, proxy.port, way);
    t.regex(await askThen(text), /^HTTP\/1\.1 401/);
  });
}
