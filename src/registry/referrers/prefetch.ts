import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Blobs} from '../blobs/blobs.ts';
import type {Route} from '../namespace.ts';
import type {Arrival, ManifestPull} from '../pull/manifest.ts';
import type {ReferrerLists} from './lists.ts';

/** Brings in, in the background, what an outage would otherwise find missing: lists of referrers and the referrers. */
export interface Prefetch {
  arrived(arrival: Arrival): void;
  /** Starts nothing more. */
  close(): void;
}

export interface PrefetchParts {
  metadata: Metadata;
  pull: ManifestPull;
  lists: ReferrerLists;
  blobs: Blobs;
  events: Events;
}

/** Pulls come first: so few manifests are followed at a time, and beyond so many that wait the next is left out. */
const CONCURRENCY = 2;
const MAX_WAITING = 1000;
/** The referrers of one subject that are fetched. */
const MAX_REFERRERS = 50;
/** The entries of one index that are followed: who writes it must not decide how often the upstream is asked. */
const MAX_ENTRIES = 100;
/** The blobs of one referrer that are fetched, likewise. */
const MAX_BLOBS = 100;

export function createPrefetch({metadata, pull, lists, blobs, events}: PrefetchParts): Prefetch {
  const waiting = new Map<string, Arrival>();
  let running = 0;
  let closed = false;

  async function fetch(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    // What is here is read on this thread: the requests that wait come first.
    await nextTurn();
    const here = await metadata.manifest(route.repository, digest);
    return here ?? (await pull.byDigest(route, digest, caller)).value;
  }

  /** A fallback tag that a client pulls through us feeds the index as well. */
  async function followTag({route, record, caller}: Arrival): Promise<void> {
    for (const digest of entriesOf(record)) {
      if (closed) return;
      await fetch(route, digest, caller);
    }
  }

  async function fetchReferrers(route: Route, subject: Digest, caller: Caller): Promise<void> {
    await lists.ready(route, subject, caller);
    const rows = await metadata.referrers(route.repository, subject, {limit: MAX_REFERRERS});
    for (const {digest} of rows) {
      const record = await fetch(route, digest, caller);
      if (record && route.registry.referrers.prefetch === 'all') await fetchBlobs(route, record, caller);
    }
  }

  /** The download is the server's: it goes on without a reader. */
  async function fetchBlobs(route: Route, {bytes}: ManifestRecord, caller: Caller): Promise<void> {
    for (const digest of distinct(readManifest(bytes).blobs, MAX_BLOBS)) {
      if (closed) return;
      await nextTurn();
      await blobs.get(route, digest, caller);
    }
  }

  async function follow(arrival: Arrival): Promise<void> {
    const {route, record, tag, caller} = arrival;
    if (tag && subjectPrefix(tag) !== undefined) return followTag(arrival);
    for (const subject of [record.digest, ...entriesOf(record)]) {
      if (closed) return;
      await fetchReferrers(route, subject, caller);
    }
  }

  /** What the upstream cannot give now is asked for again by who needs it. */
  async function followQuietly(arrival: Arrival): Promise<void> {
    try {
      await follow(arrival);
    } catch (error) {
      if (error instanceof UpstreamFailure || error instanceof OciError || closed) return;
      events.emit('background.failed', {task: `prefetch what refers to ${arrival.record.digest}`, error});
    }
  }

  function start(): void {
    while (!closed && running < CONCURRENCY) {
      const next = waiting.entries().next().value;
      if (!next) return;
      const [key, arrival] = next;
      waiting.delete(key);
      running += 1;
      followQuietly(arrival).finally(() => {
        running -= 1;
        start();
      });
    }
  }

  function wanted({route, record, tag}: Arrival): boolean {
    const {mode, prefetch} = route.registry.referrers;
    if (closed || mode === 'off' || waiting.size >= MAX_WAITING) return false;
    if (tag && subjectPrefix(tag) !== undefined) return true;
    return prefetch !== 'off' && readManifest(record.bytes).subject === undefined;
  }

  return {
    arrived(arrival) {
      if (!wanted(arrival)) return;
      const {route, record, caller} = arrival;
      waiting.set(
        `${route.repository.registry}/${route.repository.name}@${record.digest} ${caller.key}`,
        arrival,
      );
      start();
    },
    close() {
      closed = true;
      waiting.clear();
    },
  };
}

/** The first of the digests, each once. */
const distinct = (descriptors: readonly Descriptor[], limit: number): Digest[] =>
  [...new Set(descriptors.map(({digest}) => digest))].slice(0, limit);

const entriesOf = ({bytes}: ManifestRecord): Digest[] => distinct(readManifest(bytes).manifests, MAX_ENTRIES);
