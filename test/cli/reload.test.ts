import {once} from 'node:events';
import {writeFile} from 'node:fs/promises';
import {Agent, request} from 'node:http';
import type {Socket} from 'node:net';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {PATIENT, start, startInTerminal} from '../support/command.ts';
import {manifestAnswer, plainManifest} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const ANYWHERE = {BACKREF_LISTEN_HOST: '127.0.0.1', BACKREF_CONFIG: 'f.yaml'};
const LISTENS = /listens on (http:\S+)/;

/** A server whose configuration a test writes anew. */
async function serveFile(t: ExecutionContext, settings: object, env: Record<string, string> = {}) {
  const cwd = await createFolder(t);
  // JSON is YAML.
  const configure = (next: object | string) =>
    writeFile(join(cwd, 'f.yaml'), typeof next === 'string' ? next : JSON.stringify(next));
  await configure(settings);
  const server = start(t, ['serve'], {cwd, env: {...ANYWHERE, ...env}});
  const [, url] = await server.prints(LISTENS);
  await server.prints(/Pull through it|server\.listening/);
  return {cwd, configure, server, url, reload: () => server.child.kill('SIGHUP')};
}

const listening = {listen: {port: 0}};

test('a SIGHUP applies changed registries', async (t) => {
  const {configure, server, url, reload} = await serveFile(t, {
    ...listening,
    registries: {'apps.local': {default: true}},
  });
  await configure({...listening, registries: {'other.local': {default: true}}});
  reload();
  await server.prints(
    /reloaded the configuration \(f\.yaml\): registries added other\.local; removed apps\.local/,
  );
  t.is((await fetch(`${url}/v2/apps.local/app/tags/list?ns=apps.local`)).status, 404);
  t.is((await fetch(`${url}/v2/app/tags/list?ns=other.local`)).status, 404);
  t.is((await fetch(`${url}/v2/_catalog?ns=other.local`)).status, 200);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
});

test('a SIGHUP rejects a faulty configuration as a whole, with every fault', async (t) => {
  const {configure, server, url, reload} = await serveFile(t, {
    ...listening,
    registries: {'apps.local': {default: true}},
  });
  await configure('listen: {port: http}\nregistries: {other.local: {push: through}}');
  reload();
  await server.prints(/The previous configuration stays in effect/);
  const {stdout} = server.printed();
  t.regex(stdout, /The configuration cannot be used \(f\.yaml\): 2 faults/);
  t.regex(stdout, /listen\.port \(f\.yaml:1:16\)/);
  t.regex(stdout, /registries\.other\.local\.push/);
  t.is((await fetch(`${url}/v2/_catalog?ns=apps.local`)).status, 200);
  t.is((await fetch(`${url}/v2/_catalog?ns=other.local`)).status, 404);
});

test('a SIGHUP reports settings that need a restart, and does not apply them', async (t) => {
  const registries = {'apps.local': {default: true}};
  const {configure, server, url, reload} = await serveFile(t, {...listening, registries});
  await configure({listen: {port: 1}, storage: {path: './elsewhere'}, registries, log: {format: 'json'}});
  reload();
  await server.prints(/registries unchanged/);
  await server.prints(
    /takes effect only after a restart: listen, storage\.path, storage\.blobs\.path, storage\.metadata\.path/,
  );
  t.is((await fetch(`${url}/v2/app/tags/list`)).status, 404);
  await server.prints(/^\{.*"request\.end".*\}$/m);
});

test('a SIGHUP warns of what is cached when another upstream decides, or none does, who may have it', async (t) => {
  const passing = (port: number) => ({
    url: `http://127.0.0.1:${port}`,
    insecure: true,
    credentials: 'passthrough',
  });
  const registry = (upstream: object) => ({
    ...listening,
    registries: {'team.example': {hosts: ['team.mirror.example'], upstream}},
  });
  const {configure, server, reload} = await serveFile(t, registry(passing(1)));
  await configure(registry({...passing(1), realmHosts: ['sso.example']}));
  reload();
  await server.prints(/registries changed team\.example/);
  t.notRegex(server.printed().stdout, /backref rm/);
  await configure(registry(passing(2)));
  reload();
  await server.prints(
    /registries\.team\.example\.upstream: has changed, and what is cached .* \(backref rm\)/,
  );
  await configure(registry({url: 'http://127.0.0.1:2', insecure: true}));
  reload();
  await server.prints(/(backref rm[\s\S]*){2}/);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
});

test('a SIGHUP reads the files that the configuration names again', async (t) => {
  const [one, two] = [plainManifest(), plainManifest()];
  const basic = (password: string) => `Basic ${Buffer.from(`me:${password}`).toString('base64')}`;
  const challenged = {status: 401, headers: {'WWW-Authenticate': 'Basic realm="r"'}};
  const [first, second] = ['GET /v2/app/manifests/one', 'GET /v2/app/manifests/two'];
  const upstream = await createScriptedUpstream(t, [
    {request: first, answer: challenged},
    {request: first, sends: {authorization: basic('earlier')}, answer: manifestAnswer(one)},
    {request: second, answer: challenged},
    {request: second, sends: {authorization: basic('later')}, answer: manifestAnswer(two)},
  ]);
  const folder = await createFolder(t);
  const passwordFile = join(folder, 'password');
  await writeFile(passwordFile, 'earlier\n');
  const credentials = {username: 'me', passwordFile};
  const {server, url, reload} = await serveFile(t, {
    ...listening,
    registries: {
      'r.test': {
        default: true,
        upstream: {url: upstream.url, insecure: true, credentials, timeouts: PATIENT},
        referrers: {mode: 'off'},
      },
    },
  });
  t.is((await fetch(`${url}/v2/app/manifests/one`)).status, 200);
  await writeFile(passwordFile, 'later\n');
  reload();
  await server.prints(/registries changed r\.test/);
  t.is((await fetch(`${url}/v2/app/manifests/two`)).status, 200);
});

test('the server stops when its terminal is closed', async (t) => {
  const env = {BACKREF_LISTEN_HOST: '127.0.0.1', BACKREF_LISTEN_PORT: '0'};
  const terminal = await startInTerminal(t, ['serve'], {cwd: await createFolder(t), env});
  if (!terminal) return t.pass('no terminal can be made here');
  const [, url = ''] = await terminal.prints(LISTENS);
  await terminal.prints(/Pull through it/);
  const asked = request(`${url}/v2/`, {agent: new Agent({keepAlive: true})}).end();
  const [socket] = (await once(asked, 'socket')) as [Socket];
  const [answer] = await once(asked, 'response');
  await once(answer.resume(), 'end');
  terminal.child.kill('SIGKILL');
  await once(socket, 'close');
  await t.throwsAsync(fetch(`${url}/v2/`), {message: 'fetch failed'});
});
