import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import {fullReference, type ManifestRecord, type Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Blobs} from '../blobs/blobs.ts';
import type {Route} from '../namespace.ts';
import type {Arrival, ManifestPull} from '../pull/manifest.ts';
import type {ReferrerLists} from './lists.ts';

/** Fetches in the background what would be missing in an outage: lists of referrers, and the referrers themselves. */
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

/** Manifests whose referrers are fetched at a time: few, because pulls come first. */
const CONCURRENCY = 2;
/** Manifests that wait for that; further ones are left out. */
const MAX_WAITING = 1000;
/** Referrers of one subject that are fetched. */
const MAX_REFERRERS = 50;
/** Entries of one index that are followed: who writes the index must not decide how often the upstream is asked. */
const MAX_ENTRIES = 100;
/** Blobs of one referrer that are fetched, for the same reason. */
const MAX_BLOBS = 100;

export const createPrefetch = (parts: PrefetchParts): Prefetch => new ReferrerPrefetch(parts);

class ReferrerPrefetch implements Prefetch {
  readonly #parts: PrefetchParts;
  readonly #waiting = new Map<string, Arrival>();
  #running = 0;
  #isClosed = false;

  constructor(parts: PrefetchParts) {
    this.#parts = parts;
  }

  arrived(arrival: Arrival): void {
    if (!this.#isWanted(arrival)) return;
    const {route, record, caller} = arrival;
    this.#waiting.set(`${fullReference(route.repository, record.digest)} ${caller.key}`, arrival);
    this.#start();
  }

  close(): void {
    this.#isClosed = true;
    this.#waiting.clear();
  }

  #isWanted({route, record, tag}: Arrival): boolean {
    const {mode, prefetch} = route.registry.referrers;
    if (this.#isClosed || mode === 'off' || this.#waiting.size >= MAX_WAITING) return false;
    if (tag && subjectPrefix(tag) !== undefined) return true;
    return prefetch !== 'off' && readManifest(record.bytes).subject === undefined;
  }

  #start(): void {
    while (!this.#isClosed && this.#running < CONCURRENCY) {
      const next = this.#waiting.entries().next().value;
      if (!next) return;
      const [key, arrival] = next;
      this.#waiting.delete(key);
      this.#running += 1;
      this.#followQuietly(arrival).finally(() => {
        this.#running -= 1;
        this.#start();
      });
    }
  }

  /** What the upstream cannot give now is asked for again when it is needed. */
  async #followQuietly(arrival: Arrival): Promise<void> {
    try {
      await this.#follow(arrival);
    } catch (error) {
      if (error instanceof UpstreamFailure || error instanceof OciError || this.#isClosed) return;
      const task = `prefetch the referrers of ${arrival.record.digest}`;
      this.#parts.events.emit('background.failed', {task, error});
    }
  }

  async #follow(arrival: Arrival): Promise<void> {
    const {route, record, tag, caller} = arrival;
    if (tag && subjectPrefix(tag) !== undefined) return this.#fetchEntries(arrival);
    for (const subject of [record.digest, ...entriesOf(record)]) {
      if (this.#isClosed) return;
      await this.#fetchReferrers(route, subject, caller);
    }
  }

  /** The entries of a fallback tag that a client pulls through us get into the index of referrers as well. */
  async #fetchEntries({route, record, caller}: Arrival): Promise<void> {
    for (const digest of entriesOf(record)) {
      if (this.#isClosed) return;
      await this.#fetch(route, digest, caller);
    }
  }

  async #fetchReferrers(route: Route, subject: Digest, caller: Caller): Promise<void> {
    const {metadata, lists} = this.#parts;
    await lists.ready(route, subject, caller);
    const rows = await metadata.referrers(route.repository, subject, {limit: MAX_REFERRERS});
    for (const {digest} of rows) {
      const record = await this.#fetch(route, digest, caller);
      if (record && route.registry.referrers.prefetch === 'all')
        await this.#fetchBlobs(route, record, caller);
    }
  }

  async #fetch(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    // Reads run on this thread: waiting requests come first.
    await nextTurn();
    return (await this.#parts.pull.localOrByDigest(route, digest, caller)).value;
  }

  /** The server owns the download: it goes on without a reader. */
  async #fetchBlobs(route: Route, {bytes}: ManifestRecord, caller: Caller): Promise<void> {
    for (const digest of distinct(readManifest(bytes).blobs, MAX_BLOBS)) {
      if (this.#isClosed) return;
      await nextTurn();
      await this.#parts.blobs.get(route, digest, caller);
    }
  }
}

/** The first of the digests, each once. */
const distinct = (descriptors: readonly Descriptor[], limit: number): Digest[] =>
  [...new Set(descriptors.map(({digest}) => digest))].slice(0, limit);

const entriesOf = ({bytes}: ManifestRecord): Digest[] => distinct(readManifest(bytes).manifests, MAX_ENTRIES);
