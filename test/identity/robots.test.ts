import test, {type ExecutionContext} from 'ava';
import {createAttempts} from '../../src/identity/attempts.ts';
import {type Identity, LoginRefused} from '../../src/identity/authenticator.ts';
import {createRobotSecret, isWholeRobotSecret} from '../../src/identity/robot-secret.ts';
import {createRobots, type RobotRequest} from '../../src/identity/robots.ts';
import {OciError} from '../../src/oci/errors.ts';
import type {Change, Metadata, RobotRecord} from '../../src/storage/metadata.ts';
import {createMovableClock} from '../support/backref.ts';

const CI: RobotRequest = {name: 'ci', may: ['pull', 'push'], on: ['apps.local/team-*/**'], expiresIn: 1000};

const OWN: Identity = {names: ['robot:ci']};

/** The part of the metadata that robots use. */
function start() {
  const stored = new Map<string, RobotRecord>();
  const commits: Change[][] = [];
  let failure: Error | undefined;
  const metadata = {
    robots: async () => [...stored.values()],
    async commit(changes: readonly Change[]) {
      if (failure) throw failure;
      commits.push([...changes]);
      for (const change of changes) {
        if (change.type === 'robot.put') stored.set(change.robot.id, change.robot);
        if (change.type === 'robot.delete') stored.delete(change.id);
        if (change.type === 'robot.use') {
          const robot = stored.get(change.id);
          if (robot) stored.set(change.id, {...robot, usedAt: change.at});
        }
      }
      return true;
    },
  } as unknown as Metadata;
  const clock = createMovableClock();
  const again = () => createRobots({metadata, attempts: createAttempts(clock), changed: () => {}, clock});
  return {
    clock,
    stored,
    commits,
    again,
    robots: again(),
    fail(error: Error) {
      failure = error;
    },
  };
}

const bearer = (secret: string) => ({
  scheme: 'bearer' as const,
  username: undefined,
  secret,
  address: undefined,
});
const isRefused = (t: ExecutionContext, got: Promise<unknown>, message: RegExp) =>
  t.throwsAsync(got, {instanceOf: LoginRefused, message});

test('a secret has a prefix, 256 random bits and a checksum', (t) => {
  const secret = createRobotSecret();
  t.regex(secret, /^backref_robot_[0-9A-Za-z]{49}$/);
  t.true(isWholeRobotSecret(secret));
  t.not(createRobotSecret(), secret);
  const last = secret.at(-1) === 'x' ? 'y' : 'x';
  for (const wrong of [secret.slice(0, -1), `${secret}x`, `${secret.slice(0, -1)}${last}`, 'backref_robot_'])
    t.false(isWholeRobotSecret(wrong), wrong);
});

test('a robot logs in with its secret, as a password of any user or as a bearer token', async (t) => {
  const {robots} = start();
  t.false(robots.isOpen());
  const {secret} = await robots.create(CI);
  t.true(robots.isOpen());
  const identity = await robots.check(bearer(secret));
  t.deepEqual(identity?.names, ['robot:ci']);
  t.deepEqual(identity?.bound, {may: CI.may, on: CI.on} as never);
  t.is(await robots.check({...bearer(secret), scheme: 'basic', username: 'anybody'}), identity);
  t.is(await robots.check({...bearer('a password'), scheme: 'basic', username: 'ci'}), undefined);
});

test('no secret is stored', async (t) => {
  const {robots, stored} = start();
  const {secret} = await robots.create(CI);
  t.notRegex(JSON.stringify([...stored.values()]), new RegExp(secret.slice('backref_robot_'.length)));
  t.notRegex(JSON.stringify(await robots.list()), /backref_robot_/);
});

test('robots are there after a restart', async (t) => {
  const {robots, again} = start();
  const {secret} = await robots.create(CI);
  const later = again();
  await later.load();
  t.deepEqual((await later.check(bearer(secret)))?.names, ['robot:ci']);
});

test('an expired robot is refused, and so is what was issued for it', async (t) => {
  const {robots, clock} = start();
  const {secret} = await robots.create(CI);
  const id = (await robots.check(bearer(secret)))?.source?.id ?? '';
  t.truthy(robots.recall?.(OWN, id));
  clock.move(1000);
  await isRefused(t, robots.check(bearer(secret)), /has expired/);
  t.is(robots.recall?.(OWN, id), undefined);
  t.true((await robots.list()).robots[0]?.isExpired);
});

test('a revoked robot is refused at once, even when the disk does not take it', async (t) => {
  const {robots, fail} = start();
  const {secret} = await robots.create({...CI, expiresIn: undefined});
  const id = (await robots.check(bearer(secret)))?.source?.id ?? '';
  fail(new Error('disk full'));
  await t.throwsAsync(robots.revoke('ci'), {message: 'disk full'});
  await isRefused(t, robots.check(bearer(secret)), /unknown, or was revoked/);
  t.is(robots.recall?.(OWN, id), undefined);
});

test('a new robot of an old name does not revive the old one', async (t) => {
  const {robots} = start();
  const old = await robots.create(CI);
  const id = (await robots.check(bearer(old.secret)))?.source?.id ?? '';
  await robots.revoke('ci');
  await robots.create(CI);
  await isRefused(t, robots.check(bearer(old.secret)), /unknown/);
  t.is(robots.recall?.(OWN, id), undefined);
});

test('a mistyped secret is told from an unknown one', async (t) => {
  const {robots} = start();
  const {secret} = await robots.create(CI);
  await isRefused(t, robots.check(bearer(secret.slice(0, -1))), /mistyped or cut off/);
  await isRefused(t, robots.check(bearer(createRobotSecret())), /unknown/);
});

test('the last use is written in batches', async (t) => {
  const {robots, clock, commits, stored} = start();
  const {secret} = await robots.create(CI);
  for (let index = 0; index < 5; index += 1) await robots.check(bearer(secret));
  t.is((await robots.list()).robots[0]?.lastUsed, new Date(clock.now()).toISOString());
  t.is(commits.length, 1);
  await robots.flush();
  t.is(commits.length, 2);
  t.is([...stored.values()][0]?.usedAt, clock.now());
  await robots.flush();
  t.is(commits.length, 2);
});

const FAULTS: [changes: Partial<RobotRequest>, message: RegExp][] = [
  [{name: 'CI'}, /"CI" is not a name for a robot/],
  [{name: 'a b'}, /not a name/],
  [{name: ''}, /not a name/],
  [{may: ['write']}, /"write" is not an action: allowed are pull, push, delete, attach/],
  [{may: []}, /needs an action/],
  [{on: ['apps.local']}, /"apps\.local" is not a pattern for places/],
  [{on: []}, /from 1 to 100 places/],
  [{expiresIn: -1}, /cannot expire before/],
];

for (const [changes, message] of FAULTS)
  test(`a robot with ${JSON.stringify(changes)} is not made, and the reason is given`, async (t) => {
    const {robots, stored} = start();
    await t.throwsAsync(robots.create({...CI, ...changes}), {message});
    t.is(stored.size, 0);
  });

test('two robots have different names, also when they are made at the same time', async (t) => {
  const {robots, stored} = start();
  const results = await Promise.allSettled([robots.create(CI), robots.create(CI)]);
  t.deepEqual(
    results.map(({status}) => status),
    ['fulfilled', 'rejected'],
  );
  t.is(stored.size, 1);
  await t.throwsAsync(robots.revoke('other'), {message: /there is no robot "other"/});
});

test('ten unknown secrets in a minute, and their address waits; a robot does not, whatever others try there', async (t) => {
  const {robots, clock} = start();
  const {secret} = await robots.create({...CI, expiresIn: 60_000});
  const guess = () => robots.check(bearer(createRobotSecret()));
  for (let index = 0; index < 10; index += 1) await isRefused(t, guess(), /unknown/);
  const refused = await t.throwsAsync(guess());
  t.true(refused instanceof OciError && refused.status === 429 && refused.headers['Retry-After'] === '60');
  t.true((await t.throwsAsync(robots.check(bearer(secret.slice(0, -1))))) instanceof OciError);
  t.truthy(await robots.check(bearer(secret)));
  clock.move(60_000);
  for (let index = 0; index < 20; index += 1) await isRefused(t, robots.check(bearer(secret)), /has expired/);
  await isRefused(t, guess(), /unknown/);
});
