import {ANONYMOUS} from '../../src/caller.ts';
import type {Clock} from '../../src/clock.ts';
import type {UpstreamConfig} from '../../src/config.ts';
import {createEvents, type EventMap} from '../../src/events.ts';
import {parseDigest} from '../../src/oci/digest.ts';
import {parseName, parseReference} from '../../src/oci/name.ts';
import {createUpstream, type UpstreamClient} from '../../src/upstream/client.ts';
import {type BlobBody, UpstreamFailure} from '../../src/upstream/port.ts';
import {createManualClock} from './clock.ts';

export const caller = ANONYMOUS;
export const repository = parseName('team/app');
export const latest = parseReference('latest');
export const digest = parseDigest(`sha256:${'a'.repeat(64)}`);
export const MANIFEST_PATH = '/v2/team/app/manifests/latest';
/** The shortest text that is accepted as a manifest. */
export const MANIFEST_TEXT = '{"schemaVersion":2}';
export const at = (location: string, offset = 0) => ({location, offset});
export const BLOB_PATH = `/v2/team/app/blobs/${digest}`;

/** The settings of an upstream, with a test's changes. */
const upstreamConfig = (url: string, changes: Partial<UpstreamConfig> = {}): UpstreamConfig => ({
  url,
  insecure: url.startsWith('http:'),
  credentials: undefined,
  realmHosts: [],
  redirectHosts: [],
  ca: [],
  timeouts: {connect: 60_000, headers: 5000, idle: 30_000},
  concurrency: {heads: 8, manifests: 4, bodies: 4},
  breaker: {failures: 5, openFor: 30_000},
  rateLimitStatus: 503,
  quota: 'gentle',
  ...changes,
});

type Heard = {[Name in keyof EventMap]: {name: Name; event: EventMap[Name][0]}}[keyof EventMap];

/**
 * A client of the upstream at `url` that is closed with the test, and the events that it has emitted. By default
 * its clock stands still, and the delays between attempts take no time.
 */
export function createClient(
  t: {teardown(end: () => void): void},
  url: string,
  changes: Partial<UpstreamConfig> = {},
  {
    clock = createManualClock(undefined, {skipBelow: 1000}),
    env = {},
  }: {clock?: Clock; env?: NodeJS.ProcessEnv} = {},
): {client: UpstreamClient; heard: Heard[]} {
  const events = createEvents();
  const heard: Heard[] = [];
  events.on('upstream.request', (event) => heard.push({name: 'upstream.request', event}));
  events.on('upstream.failed', (event) => heard.push({name: 'upstream.failed', event}));
  events.on('upstream.refused', (event) => heard.push({name: 'upstream.refused', event}));
  events.on('upstream.throttled', (event) => heard.push({name: 'upstream.throttled', event}));
  events.on('upstream.quota', (event) => heard.push({name: 'upstream.quota', event}));
  events.on('upstream.circuit', (event) => heard.push({name: 'upstream.circuit', event}));
  events.on('upstream.credentials-refused', (event) =>
    heard.push({name: 'upstream.credentials-refused', event}),
  );
  const client = createUpstream(upstreamConfig(url, changes), {clock, events, via: 'backref-test', env});
  t.teardown(() => client.close());
  return {client, heard};
}

/** The UpstreamFailure that a promise rejects with. */
export async function failureOf(work: Promise<unknown>): Promise<UpstreamFailure> {
  try {
    await work;
  } catch (error) {
    if (error instanceof UpstreamFailure) return error;
    throw error;
  }
  throw new Error('expected an UpstreamFailure, but the upstream gave an answer');
}

export async function bytesOf(blob: BlobBody | undefined): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(blob?.body ?? []));
}
