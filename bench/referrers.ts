import {createHash} from 'node:crypto';
import {writeFile} from 'node:fs/promises';
import {Agent} from 'node:http';
import {join} from 'node:path';
import {performance} from 'node:perf_hooks';
import {BUILT, NODE_FLAGS} from '../rig/backref.ts';
import {ownPort} from '../rig/port.ts';
import {answers, ready, type Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {digestOf} from '../src/oci/digest.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../src/oci/media-type.ts';
import {parseName} from '../src/oci/name.ts';
import {fallbackTag} from '../src/oci/referrers.ts';
import type {Change} from '../src/storage/metadata.ts';
import {openSqliteMetadata} from '../src/storage/sqlite/metadata.ts';
import {type ServedContents, startContents} from './contents.ts';
import {download, median} from './download.ts';
import {peakMemory} from './mirrors.ts';
import {onCore} from './warm.ts';
import {runWrk} from './wrk.ts';

/** Milliseconds until the response to a request for a page. */
export interface PageTimes {
  /** The first one after a referrer was added. */
  grown: number;
  /** Further ones. */
  same: number;
  /** A page of which nothing has been rendered before. */
  anew: number;
}

export interface ReferrersResult {
  reindex: {
    /** Milliseconds. */
    time: number;
    /** The server's peak resident memory, in bytes. */
    peakMemory: number;
  };
  firstPage: PageTimes;
  filtered: PageTimes;
  /** Requests per second. */
  warmList: number;
  warmManifest: number;
  errors: number;
  /** Milliseconds, beside those of two round trips to the upstream without a proxy: the tag, then all entries at once. */
  coldTag: {time: number; roundTrips: number};
}

export const REINDEXED = 100_000;
export const LISTED = 10_000;
const LATENCY = 50;
export const ENTRIES = 20;
const PER_SUBJECT = 10;
const TYPES = 10;
const CHANGES = 15;
const COLD_LISTS = 40;
const COMMIT = 1000;
const REGISTRY = 'bench.example';
export const NAME = 'team/app';

const text = (name: string): string => createHash('sha256').update(name).digest('hex');
export const digestFor = (name: string) => digestOf(Buffer.from(name));

/** A manifest like that of a small artifact, about 700 bytes, the same for the same name. */
export function referrer(name: string, subject: string, type: number) {
  const empty = {mediaType: 'application/vnd.oci.empty.v1+json', digest: digestFor('{}'), size: 2};
  const artifactType = `application/vnd.example.type-${type}+json`;
  const annotations = {'org.opencontainers.image.created': '2026-11-22T00:00:00Z', name: text(name)};
  const body = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType,
    config: empty,
    layers: [{mediaType: artifactType, digest: digestFor(name), size: 1000}],
    subject: {mediaType: OCI_MANIFEST, digest: subject, size: 1000},
    annotations,
  };
  const bytes = Buffer.from(JSON.stringify(body));
  const digest = digestOf(bytes);
  const descriptor = {mediaType: OCI_MANIFEST, digest, size: bytes.length, artifactType, annotations};
  return {digest, bytes, mediaType: OCI_MANIFEST, descriptor};
}

export const indexOf = (manifests: readonly {descriptor: object}[]) => ({
  mediaType: OCI_INDEX,
  bytes: Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: manifests.map(({descriptor}) => descriptor),
    }),
  ),
});

/** Starts the built backref, with lists that stay fresh for the whole run. */
export async function startReferrersServer(scope: Scope, upstream: string) {
  const port = await ownPort();
  const url = `http://127.0.0.1:${port}`;
  const file = join(scope.folder, 'backref.yaml');
  const path = scope.folder;
  const config = {
    listen: {host: '127.0.0.1', port},
    storage: {path, blobs: {driver: 'fs', path}, metadata: {driver: 'sqlite', path: join(path, 'meta.db')}},
    log: {level: 'warn'},
    registries: {
      [REGISTRY]: {
        default: true,
        upstream: {url: upstream, insecure: true},
        referrers: {ttl: '1h', prefetch: 'off'},
      },
    },
  };
  await writeFile(file, JSON.stringify(config)); // JSON is YAML.
  const node = [process.execPath, ...NODE_FLAGS];
  const [command = '', ...args] = [...onCore(1), ...node, BUILT, 'serve', '--config', file];
  const started = scope.start(command, args);
  await ready(started, 'backref', answers(`${url}/v2/`));
  return {url, file, pid: started.pid};
}

/** Measures everything about referrers. `say` reports progress. */
export async function measureReferrers(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ReferrersResult> {
  say(`reindex of ${REINDEXED} manifests`);
  const reindex = await reindexTime(await scope.child());
  say(`${LISTED} referrers of one subject`);
  const pages = await pageTimes(await scope.child());
  say('warm lists beside warm manifests');
  const rates = await warmRates(await scope.child(), tools);
  say(`cold lists from fallback tags, ${LATENCY} ms away`);
  const coldTag = await coldTags(await scope.child());
  return {reindex, ...pages, ...rates, coldTag};
}

/** Rebuilds the index of a store that has none, with the command running beside the store's server. */
async function reindexTime(scope: Scope): Promise<ReferrersResult['reindex']> {
  const metadata = await openSqliteMetadata({path: join(scope.folder, 'meta.db')});
  const repository = {registry: REGISTRY, name: parseName(NAME)};
  for (let start = 0; start < REINDEXED; start += COMMIT) {
    const changes = Array.from({length: COMMIT}, (_, index): Change => {
      const number = start + index;
      const {descriptor: _descriptor, ...manifest} = referrer(
        `${number}`,
        digestFor(`subject ${Math.floor(number / PER_SUBJECT)}`),
        number % TYPES,
      );
      const rest = {edge: undefined, references: [], origin: 'upstream', at: 1} as const;
      return {type: 'manifest.put', repository, ...manifest, ...rest, references: []};
    });
    await metadata.commit(changes);
  }
  await metadata.close();
  const {file, pid} = await startReferrersServer(scope, await startContents(scope, new Map(), 0));
  const began = performance.now();
  const args = [BUILT, 'reindex', '--json', '--config', file];
  const printed = await scope.run(process.execPath, args, {timeout: 300_000});
  const time = performance.now() - began;
  const {result} = JSON.parse(printed.trim().split('\n').at(-1) ?? '');
  if (result.edges !== REINDEXED) throw new Error(`reindex found ${result.edges} edges`);
  const memory = await peakMemory(pid);
  await scope.end();
  return {time, peakMemory: memory};
}

async function pageTimes(scope: Scope): Promise<{firstPage: PageTimes; filtered: PageTimes}> {
  const subject = digestFor('subject');
  const list = Array.from({length: LISTED}, (_, index) => referrer(`${index}`, subject, index % TYPES));
  const later = Array.from({length: CHANGES}, (_, index) => referrer(`later ${index}`, subject, 0));
  const contents: ServedContents = new Map([
    [`/v2/${NAME}/referrers/${subject}`, indexOf(list)],
    ...later.map((one) => [`/v2/${NAME}/manifests/${one.digest}`, one] as const),
  ]);
  const {url} = await startReferrersServer(scope, await startContents(scope, contents, 0));
  const agent = new Agent({keepAlive: true});
  const all = `${url}/v2/${NAME}/referrers/${subject}`;
  const some = `${all}?artifactType=${encodeURIComponent('application/vnd.example.type-1+json')}`;
  await expectEntries(all, LISTED);
  await expectEntries(some, LISTED / TYPES);
  const nothing = () => ({grown: [] as number[], same: [] as number[], anew: [] as number[]});
  const times = {all: nothing(), some: nothing()};
  for (const [index, {digest}] of later.entries()) {
    await download(`${url}/v2/${NAME}/manifests/${digest}`, agent);
    // The page after a position near the beginning that has not been requested before is like the first page.
    const elsewhere = new URLSearchParams({last: `${index + 1}`});
    for (const [state, list, filtered] of [
      ['grown', all, some],
      ['same', all, some],
      ['anew', `${all}?${elsewhere}`, `${some}&${elsewhere}`],
    ] as const) {
      times.all[state].push((await download(list, agent)).whole);
      times.some[state].push((await download(filtered, agent)).whole);
    }
  }
  await expectEntries(all, LISTED + CHANGES);
  agent.destroy();
  await scope.end();
  const medians = ({grown, same, anew}: Record<keyof PageTimes, number[]>): PageTimes => ({
    grown: median(grown),
    same: median(same),
    anew: median(anew),
  });
  return {firstPage: medians(times.all), filtered: medians(times.some)};
}

async function expectEntries(url: string, count: number): Promise<void> {
  const response = await fetch(url);
  const {manifests = []} = JSON.parse(await response.text());
  if (manifests.length !== count) throw new Error(`${url} gave ${manifests.length} entries, not ${count}`);
}

async function warmRates(scope: Scope, tools: Toolbox) {
  const subject = digestFor('subject');
  const list = Array.from({length: 10}, (_, index) => referrer(`${index}`, subject, index));
  const [first] = list;
  if (!first) throw new Error('there is no referrer');
  const contents: ServedContents = new Map([
    [`/v2/${NAME}/referrers/${subject}`, indexOf(list)],
    [`/v2/${NAME}/manifests/${first.digest}`, first],
  ]);
  const {url} = await startReferrersServer(scope, await startContents(scope, contents, 0));
  const listUrl = `${url}/v2/${NAME}/referrers/${subject}`;
  const manifestUrl = `${url}/v2/${NAME}/manifests/${first.digest}`;
  const rates = {list: [] as number[], manifest: [] as number[]};
  let errors = 0;
  await expectEntries(listUrl, 10);
  await download(manifestUrl);
  for (let round = 0; round < 3; round++) {
    for (const [name, target] of [
      ['list', listUrl],
      ['manifest', manifestUrl],
    ] as const) {
      const load = {url: target, connections: 32, duration: 3, prefix: onCore(0)};
      const measured = await runWrk(scope, tools, load);
      rates[name].push(measured.requestsPerSecond);
      errors += measured.errors;
    }
  }
  await scope.end();
  return {warmList: median(rates.list), warmManifest: median(rates.manifest), errors};
}

/** Each list is in its own repository, about which nothing is known. */
async function coldTags(scope: Scope): Promise<ReferrersResult['coldTag']> {
  const contents: ServedContents = new Map();
  const lists = Array.from({length: COLD_LISTS + 1}, (_, number) => {
    const subject = digestFor(`subject ${number}`);
    const manifests = `/v2/team/app-${number}/manifests`;
    const entries = Array.from({length: ENTRIES}, (_, index) => referrer(`${number} ${index}`, subject, 0));
    const tag = `${manifests}/${fallbackTag(subject)}`;
    contents.set(tag, indexOf(entries));
    for (const entry of entries) contents.set(`${manifests}/${entry.digest}`, entry);
    const paths = entries.map(({digest}) => `${manifests}/${digest}`);
    return {path: `/v2/team/app-${number}/referrers/${subject}`, tag, entries: paths};
  });
  const upstream = await startContents(scope, contents, LATENCY);
  const {url} = await startReferrersServer(scope, upstream);
  const agent = new Agent({keepAlive: true});
  const times: number[] = [];
  const roundTrips: number[] = [];
  // Alternately, so that both run on the machine in the same state.
  for (const {path, tag, entries} of lists) {
    times.push((await download(url + path, agent)).whole);
    const began = performance.now();
    await download(upstream + tag, agent);
    await Promise.all(entries.map((entry) => download(upstream + entry, agent)));
    roundTrips.push(performance.now() - began);
  }
  for (const {path} of lists) await expectEntries(url + path, ENTRIES);
  agent.destroy();
  await scope.end();
  // The first one opens the connections and warms the server up.
  return {time: median(times.slice(1)), roundTrips: median(roundTrips.slice(1))};
}
