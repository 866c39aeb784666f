import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import type {RepositoryKey} from '../../storage/metadata.ts';
import type {ImageGraph} from './image-graph.ts';
import type {NeededBytes} from './needed-bytes.ts';

/**
 * A repository's link to a top-level manifest, with everything that belongs to it: the unit of eviction. Times in
 * milliseconds since the epoch.
 */
export interface ImageRoot {
  readonly repository: RepositoryKey;
  readonly digest: Digest;
  /** In the order of their names. */
  readonly tags: readonly Tag[];
  /** The root and all that belongs to it in its repository, each before what belongs to it. */
  readonly members: readonly Digest[];
  /** Of stored blobs that no other root needs, and nothing that is kept. */
  readonly uniqueBytes: number;
  /** Of stored blobs that others need as well. */
  readonly sharedBytes: number;
  /** The unique bytes, and the root's part of the shared ones: each blob is divided by those that need it. */
  readonly bytesShare: number;
  /** The requests that the members and the unique blobs would take to be pulled again. */
  readonly requests: number;
  /** Of the member that was used most. */
  readonly uses: number;
  /** The cache's age when a member was last used. */
  readonly age: number;
  readonly arrivedAt: number;
  readonly lastUsedAt: number;
  /** Another image that is here has this one as a member. */
  readonly isMember: boolean;
  /** Why it is not evicted; undefined where it may be. `local`: it was pushed here, or what was pushed here needs it. */
  readonly kept: 'local' | 'pinned' | 'newest' | undefined;
}

/** What a root knows of the inventory that it is in. */
interface RootParts {
  graph: ImageGraph;
  needed: NeededBytes;
}

/** The stored blobs that manifests name, each once. All are numbers. */
export function blobsOf(graph: ImageGraph, needed: NeededBytes, links: readonly number[]): Set<number> {
  const blobs = new Set<number>();
  for (const link of links) {
    for (const digest of graph.referencesOf(link)) {
      if (needed.sizeOf(digest) > 0) blobs.add(digest);
    }
  }
  return blobs;
}

/** A root that counts with the inventory it is in. */
export class Root implements ImageRoot {
  readonly #parts: RootParts;
  readonly link: number;
  /** As a holder of bytes. */
  readonly number: number;
  /** Its place among the roots that have not been removed. */
  position: number;
  uses = 0;
  age = 0;
  readonly arrivedAt: number;
  lastUsedAt = 0;
  kept: ImageRoot['kept'];
  memberCount = 0;
  totalBytes = 0;
  /** How many other roots have it as a member. */
  containers = 0;

  constructor(parts: RootParts, place: {link: number; number: number; position: number; now: number}) {
    this.#parts = parts;
    this.link = place.link;
    this.number = place.number;
    this.position = place.position;
    this.arrivedAt = Math.min(place.now, parts.graph.linkedAt.at(place.link));
  }

  get repository(): RepositoryKey {
    return this.#parts.graph.repositoryOf(this.link);
  }

  get digest(): Digest {
    return this.#parts.graph.digestOf(this.link);
  }

  get tags(): Tag[] {
    return this.#parts.graph.tagsOf(this.link).toSorted();
  }

  get members(): Digest[] {
    const {graph} = this.#parts;
    return graph.membersOf(this.link).map((link) => graph.digestOf(link));
  }

  get uniqueBytes(): number {
    return this.#parts.needed.uniqueBytes(this.number);
  }

  get sharedBytes(): number {
    return this.totalBytes - this.uniqueBytes;
  }

  get bytesShare(): number {
    const {graph, needed} = this.#parts;
    return needed.bytesShare(blobsOf(graph, needed, graph.membersOf(this.link)));
  }

  get requests(): number {
    return this.memberCount + this.#parts.needed.uniqueCount(this.number);
  }

  get isMember(): boolean {
    return this.containers > 0;
  }
}
