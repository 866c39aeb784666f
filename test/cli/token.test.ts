import {readdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {inspect} from 'node:util';
import {hashSync} from '@node-rs/bcrypt';
import test, {type ExecutionContext} from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {call} from '../support/command.ts';
import {resultIn} from '../support/configured.ts';
import {createFolder} from '../support/folder.ts';

const PASSWORD = 'correct horse battery staple';

/** A server that hosts a registry with rules and one user, and commands on its store. */
async function setUp(t: ExecutionContext) {
  const cwd = await createFolder(t);
  const file = join(cwd, 'f.yaml');
  const data = join(cwd, 'data');
  const htpasswd = join(cwd, 'htpasswd');
  const hash = hashSync(PASSWORD, 4);
  await writeFile(htpasswd, `alice:${hash}\n`);
  await writeFile(
    file,
    `listen: {host: 127.0.0.1, port: 0}
storage: {path: ${data}}
access:
  users: {htpasswd: ${htpasswd}}
  rules: [{who: ["user:*"], where: ["**"], may: [pull]}, {who: [anonymous], where: ["**"], may: [admin]}]
registries: {apps.local: {default: true, push: local}}
log: {level: debug, format: json}
`,
  );
  const config = await loadConfig({file, env: {}});
  const events: unknown[] = [];
  const start = async () => {
    const server = createServer(config, {env: {}});
    t.teardown(() => server.close());
    const {emit} = server.events;
    // Everything that a log or a metric could be made of.
    Object.assign(server.events, {
      emit(this: typeof server.events, ...event: Parameters<typeof emit>) {
        events.push(event);
        return emit.apply(this, event);
      },
    });
    const {url} = await server.listen();
    const ask = (path: string, authorization: string | undefined, method = 'GET') =>
      fetch(`${url}${path}`, {method, headers: authorization ? {Authorization: authorization} : {}});
    return {server, ask};
  };
  const token = (...args: string[]) => call(['token', ...args, '--config', file]);
  return {data, file, hash, start, token, events};
}

const basic = (user: string, password: string) =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const CREATE = ['create', 'ci', '--may', 'pull,push', '--on', 'apps.local/team-*/**', '--expires', '90d'];
const UPLOADS = '/v2/team-a/app/blobs/uploads/';

test('a robot that is made beside the running server logs in at once, and is refused once it is revoked', async (t) => {
  const {start, token} = await setUp(t);
  const {ask} = await start();
  const created = await token(...CREATE, '--json');
  t.is(created.code, 0, created.stderr);
  const {secret, expires, name} = resultIn(created.stdout);
  t.is(name, 'ci');
  t.regex(secret, /^backref_robot_[0-9A-Za-z]{49}$/);
  t.true(Date.parse(expires) > Date.now() + 89 * 24 * 60 * 60_000);
  t.is((await ask(UPLOADS, basic('ci', secret), 'POST')).status, 202);
  t.is((await ask(UPLOADS, `Bearer ${secret}`, 'POST')).status, 202);
  const scope = 'repository:team-a/app:pull,push';
  const issued = await ask(`/token?scope=${scope}`, basic('ci', secret));
  const bearer = `Bearer ${((await issued.json()) as {token: string}).token}`;
  t.is((await ask(UPLOADS, bearer, 'POST')).status, 202);
  t.is(
    (await ask('/v2/other/app/blobs/uploads/', basic('ci', secret), 'POST')).status,
    403,
    'beyond its grant',
  );
  t.is((await ask('/v2/team-a/app/manifests/1', basic('ci', secret), 'DELETE')).status, 403);

  const listed = resultIn((await token('ls', '--json')).stdout).robots;
  t.like(listed, {length: 1});
  t.like(listed[0], {name: 'ci', may: ['pull', 'push'], on: ['apps.local/team-*/**'], isExpired: false});
  t.true(Date.parse(listed[0].lastUsed) <= Date.now());

  t.is((await token('revoke', 'ci')).code, 0);
  t.is((await ask(UPLOADS, basic('ci', secret), 'POST')).status, 401);
  t.is((await ask(UPLOADS, bearer, 'POST')).status, 401, 'a replayed token is refused');
});

test('without a server the store is opened, and the next server knows the robots and their last use', async (t) => {
  const {start, token} = await setUp(t);
  const none = await token('ls');
  t.is(none.code, 1);
  t.regex(none.stderr, /There is no store/);
  const created = await token(...CREATE);
  t.is(created.code, 0, created.stderr);
  const [secret = '', ...more] = created.stdout.split('\n');
  t.regex(more.join('\n'), /secret of the robot "ci", which expires on 2\d{3}-\d\d-\d\d\. It is not stored/);
  const {server, ask} = await start();
  t.is((await ask(UPLOADS, basic('x', secret), 'POST')).status, 202);
  await server.close();
  const {stdout} = await token('ls');
  t.regex(
    stdout,
    /^ROBOT +MAY +ON +EXPIRES +LAST USED\nci +pull,push +apps\.local\/team-\*\/\*\* +2\d{3}-\d\d-\d\d +(?!never)\S/,
  );
  t.is((await token('revoke', 'ci')).code, 0);
  t.is((await token('ls')).stdout, 'There are no robots. Make one with "backref token create".\n');
  const again = await start();
  t.is((await again.ask(UPLOADS, basic('x', secret), 'POST')).status, 401);
});

test('a secret that is not valid any more is refused, even where nobody can log in', async (t) => {
  const {file, start, token} = await setUp(t);
  const {secret} = resultIn((await token(...CREATE, '--json')).stdout);
  await token('revoke', 'ci');
  await writeFile(
    file,
    (await readFile(file, 'utf8')).replace(/ {2}users:.*\n/, '').replace(/ {2}rules:.*\n/, '  groups: {}\n'),
  );
  const {server} = await start();
  await server.close();
  const open = createServer(await loadConfig({file, env: {}}), {env: {}});
  t.teardown(() => open.close());
  const {url} = await open.listen();
  const status = async (authorization: string) =>
    (await fetch(`${url}/v2/`, {headers: {Authorization: authorization}})).status;
  t.is(await status(basic('x', secret)), 401);
  t.is(await status(`Bearer ${secret}`), 401);
  t.is(await status(basic('hub', 'password')), 200);
});

const FAULTS: [args: string[], code: number, message: RegExp][] = [
  [['create', 'ci', '--may', 'pull', '--on', '**'], 2, /--expires/],
  [
    ['create', 'ci', '--may', 'pull', '--on', '**', '--expires', 'soon'],
    2,
    /--expires "soon" is not a duration/,
  ],
  [['create', 'ci', '--may', 'pull', '--on', '**', '--expires', '0'], 2, /is not a duration/],
  [['create', 'CI', '--may', 'pull', '--on', '**', '--expires', '1d'], 1, /is not a name for a robot/],
  [['create', 'ci', '--may', 'write', '--on', '**', '--expires', '1d'], 1, /"write" is not an action/],
  [['revoke', 'ci'], 1, /there is no robot "ci"/],
];

test('wrong arguments are refused with what is expected', async (t) => {
  const {start, token} = await setUp(t);
  await start();
  for (const [args, code, message] of FAULTS) {
    const got = await token(...args);
    t.is(got.code, code, args.join(' '));
    t.regex(got.stderr, message);
  }
});

test('no secret is in the events, the metrics, the answers, the shown configuration or the data folder', async (t) => {
  const {data, hash, file, start, token, events} = await setUp(t);
  const {server, ask} = await start();
  const {secret} = resultIn((await token(...CREATE, '--json')).stdout);
  const answers: string[] = [];
  const keep = async (response: Response) => void answers.push(await response.text());
  const wrong = 'Tr0ub4dor&3';
  for (const authorization of [
    basic('alice', PASSWORD),
    basic('alice', wrong),
    basic('ci', secret),
    basic('ci', secret.slice(0, -1)),
    `Bearer ${secret}`,
    `Bearer ${secret}x`,
    undefined,
  ])
    for (const path of ['/v2/', UPLOADS, '/v2/team-a/app/tags/list', '/metrics'])
      await keep(await ask(path, authorization));
  const issued = (await (await ask('/token?offline_token=true', basic('alice', PASSWORD))).json()) as {
    token: string;
    refresh_token: string;
  };
  await keep(await ask('/v2/', `Bearer ${issued.token}`));
  await keep(await ask('/v2/', `Bearer ${issued.refresh_token}`));
  await keep(await ask('/token', basic('alice', wrong)));
  const metrics = await ask('/metrics', undefined);
  t.is(metrics.status, 200);
  await keep(metrics);
  await server.close();
  const shown = await call(['config', 'show', '--config', file]);
  t.is(shown.code, 0);
  const stored = await Promise.all(
    (await readdir(data, {recursive: true, withFileTypes: true}))
      .filter((entry) => entry.isFile())
      .map((entry) => readFile(join(entry.parentPath, entry.name), 'latin1')),
  );
  const said = [inspect(events, {depth: 8}), ...answers, shown.stdout, shown.stderr, ...stored];
  t.true(events.length > 20 && stored.length > 1);
  const random = secret.slice('backref_robot_'.length, -1);
  for (const text of [
    PASSWORD,
    wrong,
    random,
    issued.token,
    issued.refresh_token,
    hash,
    basic('', PASSWORD).slice(10),
  ])
    t.false(
      said.some((output) => output.includes(text)),
      text,
    );
});
