import {setImmediate as nextTurn} from 'node:timers/promises';
import type {CountedRequests, Events} from '../events.ts';
import type {Digest} from '../oci/digest.ts';
import {
  type Change,
  DiskFull,
  fullName,
  fullReference,
  type Metadata,
  type PullRecord,
} from '../storage/metadata.ts';

/** Who pulled a digest, those that did last first. */
export interface WhoResult {
  digest: Digest;
  pulls: {
    /** The caller's own name. */
    caller: string;
    /** `docker.io/library/alpine`. */
    repository: string;
    /** The client's address of the last pull; null where it is not known. */
    address: string | null;
    /** ISO 8601 dates of the first and the last pull. */
    first: string;
    last: string;
    pulls: number;
  }[];
}

/** Remembers who pulled what, so that one can ask who has a digest that turned out to be bad. */
export interface Pulls {
  /** Who pulled a manifest or a blob, those that did last first; at most 1,000. */
  of(digest: Digest): Promise<WhoResult>;
  /** Forgets those whose last pull is longest ago, so that their number is bounded. */
  bound(): Promise<void>;
  /** Writes the pulls since the last flush. On a full disk they wait for the next one. @throws whatever else the commit throws */
  flush(): Promise<void>;
}

export interface PullsParts {
  metadata: Pick<Metadata, 'commit' | 'lastPullBeyond' | 'pullsOf'>;
  /** Reports the requests that were counted elsewhere. */
  handOver(): Promise<void>;
  events: Events;
  /** Default 200,000. */
  maxRecords?: number;
}

/** Records in the metadata, about 200 bytes each. */
const MAX_RECORDS = 200_000;
/** Records that wait to be written; further ones are lost. */
const MAX_WAITING = 20_000;
/** Records in one commit, which is handed to the writer as a whole. */
const BATCH = 500;
const MAX_SHOWN = 1000;

/** Follows the requests that have ended. */
export const createPulls = (parts: PullsParts): Pulls => new RecordedPulls(parts);

class RecordedPulls implements Pulls {
  readonly #metadata: PullsParts['metadata'];
  readonly #handOver: PullsParts['handOver'];
  readonly #maxRecords: number;
  #waiting = new Map<string, PullRecord>();

  constructor({metadata, handOver, events, maxRecords = MAX_RECORDS}: PullsParts) {
    this.#metadata = metadata;
    this.#handOver = handOver;
    this.#maxRecords = maxRecords;
    events.on('requests.counted', (counted) => {
      for (const requests of counted) this.#record(requests);
    });
  }

  async of(digest: Digest): Promise<WhoResult> {
    await this.flush();
    return {digest, pulls: (await this.#metadata.pullsOf(digest, MAX_SHOWN)).map(pullOf)};
  }

  async bound(): Promise<void> {
    const until = await this.#metadata.lastPullBeyond(this.#maxRecords);
    if (until !== undefined) await this.#metadata.commit([{type: 'pull.forget', until}]);
  }

  async flush(): Promise<void> {
    await this.#handOver();
    const waiting = [...this.#waiting.values()];
    if (waiting.length === 0) return;
    this.#waiting = new Map();
    try {
      while (waiting.length > 0) {
        await this.#metadata.commit(
          waiting.slice(0, BATCH).map((pull): Change => ({type: 'pull.put', pull})),
        );
        waiting.splice(0, BATCH);
        await nextTurn();
      }
    } catch (error) {
      for (const pull of waiting) this.#add(pull);
      if (!(error instanceof DiskFull)) throw error;
    }
  }

  /** A client that was answered 304 has the bytes already: it pulled them before. */
  #record(requests: CountedRequests): void {
    const {method, status, kind, caller, registry, repository, digest} = requests;
    const isPull = method === 'GET' && (kind === 'manifest' || kind === 'blob');
    if (!isPull || (status !== 200 && status !== 206)) return;
    if (registry === undefined || repository === undefined || digest === undefined) return;
    const {client: address, first, last, count: pulls} = requests;
    this.#add({digest, caller, repository: {registry, name: repository}, address, first, last, pulls});
  }

  #add(pull: PullRecord): void {
    const key = `${fullReference(pull.repository, pull.digest)} ${pull.caller}`;
    const known = this.#waiting.get(key);
    if (known === undefined && this.#waiting.size >= MAX_WAITING) return;
    this.#waiting.set(key, known === undefined ? pull : joined(known, pull));
  }
}

/** Two records of the same digest, caller and repository as one. */
function joined(one: PullRecord, other: PullRecord): PullRecord {
  const later = one.last > other.last ? one : other;
  return {...later, first: Math.min(one.first, other.first), pulls: one.pulls + other.pulls};
}

const pullOf = ({caller, repository, address, first, last, pulls}: PullRecord): WhoResult['pulls'][0] => ({
  caller,
  repository: fullName(repository),
  address: address ?? null,
  first: new Date(first).toISOString(),
  last: new Date(last).toISOString(),
  pulls,
});
