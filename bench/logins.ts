import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {hash} from '@node-rs/bcrypt';
import {table} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {digestOf} from '../src/oci/digest.ts';
import {buildArtifact, manifestPath, type ServedArtifact} from './artifact.ts';
import {type ServedContents, startContents} from './contents.ts';
import {ACCEPT, median} from './download.ts';
import {type OwnMirror, type OwnMirrorOptions, startOwn} from './mirrors.ts';
import {rate} from './numbers.ts';
import {type PartReport, part} from './part.ts';
import {createProfiler} from './profile/capture.ts';
import type {Profile} from './profile/profile.ts';
import {timeProfile} from './profile/summary.ts';
import {target} from './targets.ts';
import {onCore} from './warm.ts';
import {runWrk} from './wrk.ts';

/** How a client is known: not at all, by a token from `/token`, or by its password with each request. */
const WAYS = ['none', 'token', 'basic'] as const;
type Way = (typeof WAYS)[number];

interface LoginsResult {
  work: string;
  /** Requests per second, medians over the rounds. `none` is of a server where nobody can log in. */
  rates: Record<Way, number>;
  /** Failed requests, over all rounds and ways. */
  errors: number;
}

/** A server, with what to send to it. */
interface Login {
  way: Way;
  url: string;
  /** The `Authorization` header; the empty text for none. */
  authorization: string;
}

/** Of the rate without logins. */
const MIN_SHARE = 0.85;
/** Those that count; in one before them, the servers' code is compiled. */
const ROUNDS = 5;
const REPOSITORY = 'library/warm';
const USER = 'bench';
const PASSWORD = 'a password of the bench';
/** What `htpasswd -C 10` writes. A password is compared once in five minutes, so this is hardly part of the rates. */
const BCRYPT_COST = 10;
/** Two rules that do not match the caller come before the one that does. */
const RULES = [
  {who: ['robot:*'], where: ['docker.io/team-*/**'], may: ['pull', 'push']},
  {who: ['group:dev'], where: ['docker.io/dev/**'], may: ['pull', 'attach']},
  {who: ['user:*'], where: ['docker.io/**'], may: ['pull']},
];

/** Measures a cached manifest without logins, with a token and with a password. `say` reports progress. */
async function measureLogins(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<LoginsResult[]> {
  const {artifact, works} = loads();
  const {digest} = artifact.manifest;
  const upstream = await startContents(scope, contentsOf(artifact), 0);
  const open = await startOwn(await scope.child(), upstream, {prefix: onCore(1)});
  const ruled = await startWithLogins(await scope.child(), upstream, {prefix: onCore(1)});
  const logins = await loginsOf(open.url, ruled.url);
  for (const {path} of works) {
    await expectStatus(ruled.url + path, '', 401);
    for (const login of logins) await warm(login, path, digest);
  }
  const results: LoginsResult[] = [];
  for (const {work, path} of works) {
    say(`${work}, with and without a login`);
    const samples: Record<Way, number[]> = {none: [], token: [], basic: []};
    let errors = 0;
    for (let round = 0; round <= ROUNDS; round++) {
      for (const {way, url, authorization} of logins) {
        const load = {url: url + path, authorization, connections: 32, duration: 2, prefix: onCore(0)};
        const measured = await runWrk(scope, tools, load);
        if (round > 0) samples[way].push(measured.requestsPerSecond);
        errors += measured.errors;
      }
    }
    const {none, token, basic} = samples;
    results.push({work, rates: {none: median(none), token: median(token), basic: median(basic)}, errors});
  }
  return results;
}

function loginsReport(results: readonly LoginsResult[]): PartReport {
  const share = (own: number, without: number) =>
    `${(own / without).toFixed(2)} × (${rate(own)} of ${rate(without)} req/s)`;
  const text = table(
    [
      ['', 'aim', 'backref'],
      ...results.flatMap(({work, rates: {none, token, basic}}) => [
        [`${work}, with a bearer token`, `≥ ${MIN_SHARE} ×`, share(token, none)],
        ['– with Basic', '', share(basic, none)],
      ]),
    ],
    'right',
  );
  return {
    text,
    targets: results.map(({work, rates: {none, token}}) =>
      target(
        {work: `a token checked on every request: ${work}`, beside: 'without', load: work},
        token / none,
        {
          least: MIN_SHARE,
        },
      ),
    ),
    faults: results.flatMap(({work, errors}) =>
      errors > 0 ? [`${work}, with and without a login: ${errors} requests failed`] : [],
    ),
  };
}

/** The same warm manifest from a server with a user and rules, and from one that has neither. */
export const LOGINS = part({
  name: 'logins',
  tools: ['wrk'],
  measure: measureLogins,
  report: loginsReport,
  profile: profileToken,
});

/** Shows where the time goes when each request has a token. */
async function profileToken(load: string, scope: Scope, tools: Toolbox): Promise<Profile | undefined> {
  const {artifact, works} = loads();
  const path = works.find(({work}) => work === load)?.path ?? '';
  const own = await scope.child();
  const upstream = await startContents(own, contentsOf(artifact), 0);
  const profiler = await createProfiler(own);
  const {url, process} = await startWithLogins(own, upstream, {prefix: onCore(1), profiler});
  const token = (await loginsOf(url, url)).find(({way}) => way === 'token');
  if (!token) return undefined;
  await warm(token, path, artifact.manifest.digest);
  const {authorization} = token;
  const run = () =>
    runWrk(own, tools, {url: url + path, authorization, connections: 32, duration: 2, prefix: onCore(0)});
  await run();
  const {threads} = await profiler.capture(process, run);
  await own.end();
  return threads[0] && timeProfile(`${load}, with a token`, threads[0]);
}

/** What is asked for. */
function loads() {
  const artifact = buildArtifact(REPOSITORY, '1', [1024]);
  const works = [
    {work: 'manifest by digest', path: manifestPath(artifact, artifact.manifest.digest)},
    {work: 'manifest by fresh tag', path: manifestPath(artifact, artifact.tag)},
  ];
  return {artifact, works};
}

function contentsOf(artifact: ServedArtifact): ServedContents {
  const references = [artifact.tag, artifact.manifest.digest];
  return new Map(references.map((reference) => [manifestPath(artifact, reference), artifact.manifest]));
}

/** Starts a server with a user, who may pull, and with rules that let nobody else pull. Its tokens outlive the run. */
async function startWithLogins(
  scope: Scope,
  upstream: string,
  options: OwnMirrorOptions,
): Promise<OwnMirror> {
  const htpasswd = join(scope.folder, 'htpasswd');
  await writeFile(htpasswd, `${USER}:${await hash(PASSWORD, BCRYPT_COST)}\n`);
  const access = {users: {htpasswd}, tokens: {ttl: '1h'}, rules: RULES};
  return startOwn(scope, upstream, {...options, settings: {access}});
}

async function loginsOf(open: string, ruled: string): Promise<Login[]> {
  const basic = `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`;
  const query = new URLSearchParams({service: 'backref', scope: `repository:${REPOSITORY}:pull`});
  const {token} = JSON.parse((await expectStatus(`${ruled}/token?${query}`, basic, 200)).toString());
  return [
    {way: 'none', url: open, authorization: ''},
    {way: 'token', url: ruled, authorization: `Bearer ${token}`},
    {way: 'basic', url: ruled, authorization: basic},
  ];
}

/** Pulls twice: from the upstream, then from the cache. @throws Error when the server sends other bytes. */
async function warm({url, authorization, way}: Login, path: string, digest: string): Promise<void> {
  for (let time = 0; time < 2; time++) {
    const found = digestOf(await expectStatus(url + path, authorization, 200));
    if (found !== digest) throw new Error(`${path} has other bytes (${way}): ${found}`);
  }
}

/** @returns the body. @throws Error when the status is another one. */
async function expectStatus(url: string, authorization: string, status: number): Promise<Buffer> {
  const headers = {accept: ACCEPT, ...(authorization ? {authorization} : {})};
  const response = await fetch(url, {headers});
  const body = Buffer.from(await response.arrayBuffer());
  if (response.status !== status)
    throw new Error(`${url} answered ${response.status} instead of ${status}: ${body.toString()}`);
  return body;
}
