import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import {readdir, readFile, stat, writeFile} from 'node:fs/promises';
import {connect} from 'node:http2';
import {Agent, request} from 'node:https';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {connect as connectTls} from 'node:tls';
import {type RunningBackref, SOURCES, serveRegistries} from '../rig/backref.ts';
import {buildImage, type Image, pushImage, sha256} from '../rig/image.ts';
import {ownPort} from '../rig/port.ts';
import {ready, type Scope} from '../rig/scope.ts';
import type {Tool, Toolbox} from '../rig/tools.ts';
import {cleanEnvironment, expectAll} from './clients/client.ts';
import {everyDigest, hashFiles} from './clients/copied-files.ts';
import type {Contender} from './part.ts';
import {type CaseOutcome, messageOf} from './report.ts';
import {HTPASSWD, USER} from './user.ts';

export const PROXY_CASES = ['pull', 'login', 'HTTP/2', 'upload is streamed', "client's address"] as const;

const IMAGE = buildImage('team/app', '1', 'oci');
/** Only a user who has logged in may pull it. */
const SECRET = buildImage('secret/app', '1', 'oci');
const DEPLOY = join(import.meta.dirname, '..', 'deploy');
/** Another address of this machine, as a client's. */
const CLIENT = '127.0.0.5';
const HALF_BYTES = 32 * 2 ** 20;

/** A certificate for 127.0.0.1 that signed itself. */
interface Pair {
  cert: string;
  key: string;
}

/** A proxy that runs before backref with the configuration in `deploy/`. */
interface ProxyKind {
  name: string;
  tool: Tool;
  /** The command's arguments, for a proxy at `port` before the backref at `behind`. */
  configure(scope: Scope, pair: Pair, port: number, behind: string): Promise<string[]>;
}

const NGINX: ProxyKind = {
  name: 'nginx',
  tool: 'nginx',
  async configure({folder}, {cert, key}, port, behind) {
    const block = (await readFile(join(DEPLOY, 'nginx.conf'), 'utf8'))
      .replace('listen 443', `listen 127.0.0.1:${port}`)
      .replace('127.0.0.1:5000;', `${behind};`)
      .replace(/\/etc\/ssl\/\S+\.crt/, cert)
      .replace(/\/etc\/ssl\/\S+\.key/, key);
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((name) => `${name}_temp_path ${folder}/${name};`)
      .join('\n');
    const file = join(folder, 'nginx.conf');
    await writeFile(
      file,
      `daemon off;
${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes 1;
pid ${folder}/nginx.pid;
events {}
http {
access_log off;
${paths}
${block}
}`,
    );
    return ['-c', file, '-e', join(folder, 'error.log')];
  },
};

const CADDY: ProxyKind = {
  name: 'Caddy',
  tool: 'caddy',
  async configure({folder}, {cert, key}, port, behind) {
    const site = (await readFile(join(DEPLOY, 'Caddyfile'), 'utf8'))
      .replace('mirror.example.com {', `https://127.0.0.1:${port} {\n  bind 127.0.0.1\n  tls ${cert} ${key}`)
      .replace('127.0.0.1:5000 {', `${behind} {`);
    const file = join(folder, 'Caddyfile');
    // HTTP/3 would need the UDP port of the same number.
    const options = [
      'admin off',
      'auto_https off',
      `storage file_system ${folder}`,
      'servers {',
      'protocols h1 h2',
      '}',
    ];
    await writeFile(file, `{\n${options.join('\n')}\n}\n${site}`);
    return ['run', '--adapter', 'caddyfile', '--config', file];
  },
};

/** The proxies of `deploy/`, and backref's own TLS, each before a hosted registry. */
export const PROXIES: readonly Contender[] = [
  ...[NGINX, CADDY].map(
    (kind): Contender => ({
      name: kind.name,
      tools: [kind.tool, 'crane', 'openssl'],
      run: (scope, {tools, done}) => runProxy(scope, tools, kind, done),
    }),
  ),
  {
    name: "crane, backref's own TLS",
    tools: ['crane', 'openssl'],
    run: (scope, {tools, done}) => runOwnTls(scope, tools, done),
  },
];

type Done = (outcome: CaseOutcome) => void;

async function runProxy(parent: Scope, tools: Toolbox, kind: ProxyKind, done: Done): Promise<void> {
  const scope = await parent.child();
  try {
    const backref = await startBehind(scope, {host: '127.0.0.1', trustedProxies: ['127.0.0.1']});
    const pair = await createPair(scope, tools);
    const port = await ownPort();
    const args = await kind.configure(scope, pair, port, backref.host);
    const env = {...cleanEnvironment(scope), XDG_DATA_HOME: scope.folder, XDG_CONFIG_HOME: scope.folder};
    const started = scope.start(tools.path(kind.tool), args, {env});
    await ready(started, kind.name, () => accepts(port));
    const place = {port, ca: await readFile(pair.cert, 'utf8')};
    await attempt('pull', done, () => pull(scope, tools, pair, `127.0.0.1:${port}`));
    await attempt('login', done, () => pullAsUser(scope, tools, pair, `127.0.0.1:${port}`));
    await attempt('HTTP/2', done, () => askByHttp2(place));
    await attempt('upload is streamed', done, () => uploadInHalves(scope, place));
    await attempt("client's address", done, () => findClient(place, backref));
  } finally {
    await scope.end();
  }
}

async function runOwnTls(parent: Scope, tools: Toolbox, done: Done): Promise<void> {
  const scope = await parent.child();
  try {
    const pair = await createPair(scope, tools);
    const port = await ownPort();
    await startBehind(scope, {host: '127.0.0.1'}, {host: '127.0.0.1', port, tls: pair});
    const place = {port, ca: await readFile(pair.cert, 'utf8')};
    await attempt('pull', done, () => pull(scope, tools, pair, `127.0.0.1:${port}`));
    await attempt('login', done, () => pullAsUser(scope, tools, pair, `127.0.0.1:${port}`));
    await attempt('upload is streamed', done, () => uploadInHalves(scope, place));
  } finally {
    await scope.end();
  }
}

/** Starts a hosted registry with the image, listening at a free port, and at others. */
async function startBehind(scope: Scope, listener: object, ...others: object[]): Promise<RunningBackref> {
  const port = await ownPort();
  const htpasswd = join(scope.folder, 'htpasswd');
  await writeFile(htpasswd, HTPASSWD);
  const backref = await serveRegistries(scope, {
    main: SOURCES,
    folder: folderOf(scope),
    port,
    registries: {'apps.local': {default: true}},
    settings: {
      listen: [{...listener, port}, ...others],
      access: {
        users: {htpasswd},
        rules: [
          {who: [`user:${USER.name}`], where: ['apps.local/secret/**'], may: ['pull']},
          {who: ['*'], where: ['apps.local/secret/**'], may: ['push']},
          {who: ['*'], where: ['**'], may: ['pull', 'push']},
        ],
      },
      log: {level: 'info', format: 'json'},
    },
  });
  for (const image of [IMAGE, SECRET]) await pushImage(backref.url, image);
  return backref;
}

const folderOf = (scope: Scope): string => join(scope.folder, 'data');

async function attempt(name: string, done: Done, run: () => Promise<void>): Promise<void> {
  const began = Date.now();
  const fault = await run().then(() => undefined, messageOf);
  done({case: name, fault, ms: Date.now() - began, asked: 0});
}

async function createPair(scope: Scope, tools: Toolbox): Promise<Pair> {
  const pair = {cert: join(scope.folder, 'tls.crt'), key: join(scope.folder, 'tls.key')};
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const files = ['-keyout', pair.key, '-out', pair.cert];
  await scope.run(tools.path('openssl'), ['req', '-x509', ...kind, ...names, ...files]);
  return pair;
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTls({host: '127.0.0.1', port, rejectUnauthorized: false});
    socket.once('secureConnect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('secureConnect', () => socket.destroy());
  });
}

/** Pulls with a client that verifies the certificate. */
async function pull(scope: Scope, tools: Toolbox, {cert}: Pair, host: string, image = IMAGE): Promise<void> {
  const {repository, tag}: Image = image;
  const folder = join(scope.folder, `pulled-${repository.replace('/', '-')}`);
  const env = {...cleanEnvironment(scope), SSL_CERT_FILE: cert};
  await scope.run(tools.path('crane'), ['pull', '--format', 'oci', `${host}/${repository}:${tag}`, folder], {
    env,
  });
  expectAll('the pulled files', everyDigest(image), await hashFiles(folder));
}

/** The client is sent to the token service by the scheme and the host that it used itself. */
async function pullAsUser(scope: Scope, tools: Toolbox, pair: Pair, host: string): Promise<void> {
  const refused = await pull(scope, tools, pair, host, SECRET).then(
    () => false,
    () => true,
  );
  if (!refused) throw new Error('it was pulled without a login');
  const env = {...cleanEnvironment(scope), SSL_CERT_FILE: pair.cert};
  const login = ['auth', 'login', '--username', USER.name, '--password', USER.password, host];
  await scope.run(tools.path('crane'), login, {env});
  await pull(scope, tools, pair, host, SECRET);
}

interface Place {
  port: number;
  ca: string;
}

async function askByHttp2({port, ca}: Place): Promise<void> {
  const session = connect(`https://127.0.0.1:${port}`, {ca});
  try {
    const stream = session.request({
      ':path': `/v2/${IMAGE.repository}/manifests/${IMAGE.tag}`,
      accept: '*/*',
    });
    const [headers] = await once(stream, 'response');
    const body = Buffer.concat(await stream.toArray());
    if (session.alpnProtocol !== 'h2') throw new Error(`the protocol is ${session.alpnProtocol}`);
    if (headers[':status'] !== 200) throw new Error(`status ${headers[':status']}`);
    if (sha256(body) !== IMAGE.index.digest) throw new Error('the manifest is not the one that was pushed');
  } finally {
    session.destroy();
  }
}

/** Sends half of a blob, and the rest only when backref has most of that half. */
async function uploadInHalves(scope: Scope, place: Place): Promise<void> {
  const halves = [randomBytes(HALF_BYTES), randomBytes(HALF_BYTES)] as const;
  const begun = await send(place, 'POST', `/v2/${IMAGE.repository}/blobs/uploads/`);
  if (begun.status !== 202) throw new Error(`the upload was answered with ${begun.status}`);
  const location = new URL(begun.location, `https://127.0.0.1:${place.port}`);
  location.searchParams.set('digest', sha256(Buffer.concat(halves)));
  const put = await send(place, 'PUT', location.pathname + location.search, async function* () {
    yield halves[0];
    await arrival(folderOf(scope), HALF_BYTES * 0.9);
    yield halves[1];
  });
  if (put.status !== 201) throw new Error(`the blob was answered with ${put.status}`);
}

/** Waits until a file of this many bytes is there, at most 20 s. @throws Error */
async function arrival(folder: string, bytes: number): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const entries = await readdir(folder, {recursive: true, withFileTypes: true});
    for (const entry of entries.filter((each) => each.isFile())) {
      const found = await stat(join(entry.parentPath, entry.name)).catch(() => undefined);
      if (found && found.size >= bytes) return;
    }
    await delay(100);
  }
  throw new Error('the first half of the upload did not reach backref before the second was sent');
}

function send(
  {port, ca}: Place,
  method: string,
  path: string,
  body?: () => AsyncGenerator<Buffer>,
  headers: Record<string, string> = {},
): Promise<{status: number; location: string}> {
  return new Promise((resolve, reject) => {
    const length = body ? {'Content-Length': 2 * HALF_BYTES} : {};
    const options = {host: '127.0.0.1', port, ca, method, path, localAddress: CLIENT, agent: new Agent()};
    const asked = request({...options, headers: {...length, ...headers}}, (response) => {
      response.resume();
      resolve({status: response.statusCode ?? 0, location: response.headers.location ?? ''});
    });
    asked.once('error', reject);
    const write = async () => {
      for await (const chunk of body?.() ?? []) if (!asked.write(chunk)) await once(asked, 'drain');
      asked.end();
    };
    write().catch((error: Error) => asked.destroy(error));
  });
}

/** The log names the client, whatever the client writes about itself. */
async function findClient(place: Place, backref: RunningBackref): Promise<void> {
  const lies = {Forwarded: 'for=10.9.9.9', 'X-Forwarded-For': '10.9.9.8', 'X-Real-IP': '10.9.9.7'};
  const path = `/v2/${IMAGE.repository}/tags/list?n=${Date.now()}`;
  await send(place, 'GET', path, undefined, lies);
  for (let tries = 0; tries < 50; tries++) {
    const line = backref.process
      .output()
      .split('\n')
      .find((text) => text.includes(path) && text.includes('"client"'));
    if (line) {
      const {client} = JSON.parse(line);
      if (client === CLIENT) return;
      throw new Error(`backref takes ${client} for the client, which is ${CLIENT}`);
    }
    await delay(100);
  }
  throw new Error('backref logged no request');
}
