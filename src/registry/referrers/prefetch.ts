import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import {isAttachedTag, subjectPrefix} from '../../oci/referrers.ts';
import {fullReference, type ManifestRecord, type Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Blobs} from '../blobs/blobs.ts';
import type {Arrival} from '../pull/manifest.ts';
import {hasSpare} from '../quota.ts';
import type {Registries} from '../registries.ts';
import {isStillServed} from '../served.ts';
import {type AttachedManifests, type Stop, unlessRefused} from './attached.ts';

/** Fetches in the background what would be missing in an outage: lists of referrers, and what is attached to an image. */
export interface Prefetch {
  arrived(arrival: Arrival): void;
  /** Starts nothing more. */
  close(): void;
}

export interface PrefetchParts {
  metadata: Pick<Metadata, 'manifest'>;
  attached: AttachedManifests;
  blobs: Blobs;
  /** The registries as they are configured now. */
  registries(): Registries;
  events: Events;
}

/** A manifest that arrived, until its turn. */
type Waiting = Omit<Arrival, 'record'> & {digest: Digest};

/** Manifests whose referrers are fetched at a time: few, because pulls come first. */
const CONCURRENCY = 2;
/** Manifests that wait for that; further ones are left out. */
const MAX_WAITING = 1000;
/** Blobs of one manifest that are fetched: who writes it must not decide how often the upstream is asked. */
const MAX_BLOBS = 100;

export const createPrefetch = (parts: PrefetchParts): Prefetch => new ReferrerPrefetch(parts);

class ReferrerPrefetch implements Prefetch {
  readonly #parts: PrefetchParts;
  /** Digests alone: a thousand manifests could be gigabytes. */
  readonly #waiting = new Map<string, Waiting>();
  readonly #closing = new AbortController();
  #running = 0;

  constructor(parts: PrefetchParts) {
    this.#parts = parts;
  }

  arrived(arrival: Arrival): void {
    if (!this.#isWanted(arrival)) return;
    const {route, record, caller, tag} = arrival;
    const {digest} = record;
    this.#waiting.set(`${fullReference(route.repository, digest)} ${caller.key}`, {
      route,
      digest,
      caller,
      tag,
    });
    this.#start();
  }

  close(): void {
    this.#closing.abort();
    this.#waiting.clear();
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  #isWanted({route, record, tag}: Arrival): boolean {
    const {mode, prefetch} = route.registry.referrers;
    if (this.#isClosed || mode === 'off' || this.#waiting.size >= MAX_WAITING) return false;
    if (!hasSpare(route.registry)) return false;
    if (isFallback(tag)) return true;
    if (prefetch === 'off' || (tag && isAttachedTag(tag))) return false;
    if (this.#parts.attached.isFetching(route, record.digest)) return false;
    return readManifest(record.bytes).subject === undefined;
  }

  #start(): void {
    while (!this.#isClosed && this.#running < CONCURRENCY) {
      const next = this.#waiting.entries().next().value;
      if (!next) return;
      const [key, waiting] = next;
      this.#waiting.delete(key);
      this.#running += 1;
      this.#followQuietly(waiting).finally(() => {
        this.#running -= 1;
        this.#start();
      });
    }
  }

  /** What the upstream cannot give now is asked for again when it is needed. */
  async #followQuietly({digest, ...waiting}: Waiting): Promise<void> {
    try {
      const record = await this.#parts.metadata.manifest(waiting.route.repository, digest);
      // What could not be kept, or is evicted already, needs nothing.
      if (record) await this.#follow({...waiting, record});
    } catch (error) {
      if (error instanceof UpstreamFailure || error instanceof OciError || this.#isClosed) return;
      const task = `prefetch the referrers of ${digest}`;
      this.#parts.events.emit('background.failed', {task, error});
    }
  }

  async #follow(arrival: Arrival): Promise<void> {
    const {attached} = this.#parts;
    const signal = this.#stopFor(arrival);
    // The entries of a fallback tag that a client pulls through us get into the index of referrers as well.
    if (isFallback(arrival.tag)) return this.#fetch(arrival, attached.entries(arrival, signal));
    await this.#fetch(arrival, attached.referring(arrival, signal));
    if (bringsAll(arrival)) await this.#fetch(arrival, attached.tagged(arrival, signal));
  }

  async #fetch(arrival: Arrival, manifests: AsyncIterable<ManifestRecord>): Promise<void> {
    for await (const manifest of manifests) if (bringsAll(arrival)) await this.#fetchBlobs(arrival, manifest);
  }

  /**
   * Most tags of cosign's are absent, and most lists empty: these requests count against the rate limit as well. An image
   * may have waited here while the configuration was reloaded.
   */
  #stopFor({route}: Arrival): Stop {
    const {signal} = this.#closing;
    const {registries} = this.#parts;
    return {
      get aborted() {
        return signal.aborted || !hasSpare(route.registry) || !isStillServed(registries(), route);
      },
    };
  }

  /** The server owns the download: it goes on without a reader. */
  async #fetchBlobs(arrival: Arrival, {bytes}: ManifestRecord): Promise<void> {
    const {route, caller} = arrival;
    const stop = this.#stopFor(arrival);
    const digests = new Set(readManifest(bytes).blobs.map(({digest}) => digest));
    for (const digest of [...digests].slice(0, MAX_BLOBS)) {
      if (stop.aborted) return;
      await nextTurn();
      await unlessRefused(() => this.#parts.blobs.get(route, digest, caller));
    }
  }
}

const isFallback = (tag: Arrival['tag']): boolean => tag !== undefined && subjectPrefix(tag) !== undefined;

const bringsAll = ({route}: Arrival): boolean => route.registry.referrers.prefetch === 'all';
