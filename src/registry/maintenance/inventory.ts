import type {Digest} from '../../oci/digest.ts';
import type {Reference} from '../../oci/name.ts';
import {type BlobRecord, fullName, type Metadata, type RepositoryKey} from '../../storage/metadata.ts';
import {Column} from './column.ts';
import {ImageGraph} from './image-graph.ts';
import {blobsOf, type ImageRoot, Root} from './image-root.ts';
import {eachNumber, eachRow, type InventoryRows, rowsOf} from './inventory-rows.ts';
import {KEEPER, NeededBytes} from './needed-bytes.ts';

export type {ImageRoot} from './image-root.ts';

/** Which copies are never evicted. */
export interface Protection {
  /** @param references an image's tags, its digest, and the digests of what belongs to it */
  isPinned(repository: RepositoryKey, references: readonly Reference[]): boolean;
  /** How many of the repository's images, the most recently linked ones, are kept. */
  newestKept(repository: RepositoryKey): number;
}

/** A stored blob. */
export interface StoredBlob {
  digest: Digest;
  /** Bytes. */
  size: number;
}

/** Everything that is here, as images. */
export interface Inventory {
  /** Those that have not been removed, in no order. */
  readonly roots: readonly ImageRoot[];
  /** Stored blobs that no manifest of any repository names and that were not pushed here. */
  readonly unrooted: readonly (StoredBlob & {storedAt: number})[];
  /** The blobs that nobody needs when the root is gone: `uniqueBytes` in all. */
  blobsFreedBy(root: ImageRoot): StoredBlob[];
  /** The stored blobs that the root needs, with how many need each: images, and pushed content as one more. */
  blobsOf(root: ImageRoot): (StoredBlob & {holders: number})[];
  /**
   * Takes a root out.
   * @returns the roots of which something changed: more bytes are theirs alone, or they are no members any more
   * @throws RangeError for a root that is kept as `local`, and for one that is not here
   */
  remove(root: ImageRoot): readonly ImageRoot[];
}

/**
 * Reads a snapshot of the metadata; gives way to requests every few hundred rows.
 * @param now milliseconds since the epoch; times after it count as now: the clock has been set back since
 */
export async function takeInventory(
  metadata: Pick<Metadata, 'snapshot'>,
  protection: Protection,
  now: number,
): Promise<Inventory> {
  const snapshot = await metadata.snapshot();
  try {
    return await inventoryOf(rowsOf(snapshot), protection, now);
  } finally {
    await snapshot.close();
  }
}

/** As `takeInventory`, of rows that have been read. */
export async function inventoryOf(
  rows: InventoryRows,
  protection: Protection,
  now: number,
): Promise<Inventory> {
  const inventory = new ImageInventory(now);
  await inventory.read(rows);
  await inventory.findRoots();
  await inventory.keep(protection);
  await inventory.findUnrooted();
  return inventory;
}

/** Of a blob that was pushed here, or that something needs that was pushed here. */
const LOCAL = 1;
/** The same, where a holder that stays holds it. */
const HELD = 2;

class ImageInventory implements Inventory {
  readonly roots: Root[] = [];
  readonly unrooted: (StoredBlob & {storedAt: number})[] = [];
  readonly #graph = new ImageGraph();
  readonly #needed = new NeededBytes();
  readonly #now: number;
  /** By their numbers. */
  readonly #rootsEver: (Root | undefined)[] = [undefined];
  readonly #rootOf = new Map<number, Root>();
  /** By link: 1 where a root has it as a member. */
  readonly #isReached = new Column(Int32Array);
  /** By digest: `LOCAL`, `HELD` or 0. */
  readonly #isLocal = new Column(Int32Array);
  readonly #blobs = new Column(Int32Array);
  readonly #storedAt = new Column(Float64Array);

  constructor(now: number) {
    this.#now = now;
  }

  async read(rows: InventoryRows): Promise<void> {
    const graph = this.#graph;
    await eachRow(rows.links, (link) => {
      // A list that was synthesized here names nothing as its own, and ends by itself.
      if (link.expiresAt === undefined) graph.addLink(link);
    });
    await eachRow(rows.references, (reference) => graph.addReference(reference));
    await eachRow(rows.tags, (tag) => graph.addTag(tag));
    await eachRow(rows.edges, (edge) => graph.addEdge(edge));
    await eachRow(rows.blobs, (blob) => this.#addBlob(blob));
    await eachRow(rows.localBlobs, ({digest}) => this.#isLocal.set(graph.digests.add(digest), LOCAL));
  }

  #addBlob({digest, size, state, storedAt}: BlobRecord): void {
    if (state !== 'ready') return;
    const number = this.#graph.digests.add(digest);
    this.#needed.setSize(number, size);
    this.#blobs.push(number);
    this.#storedAt.push(storedAt);
  }

  async findRoots(): Promise<void> {
    const graph = this.#graph;
    const isMember = new Column(Int32Array);
    await eachNumber(graph.size, (link) => {
      for (const member of graph.belongingTo(link)) isMember.set(member, 1);
    });
    await eachNumber(graph.size, (link) => {
      if (isMember.at(link) === 0 || graph.hasOwnTag(link)) this.#addRoot(link);
    });
    await eachNumber(this.roots.length, (index) => this.#hold(this.roots[index]));
    // Manifests that tags attach to each other in a circle.
    await eachNumber(graph.size, (link) => {
      if (this.#isReached.at(link) === 0) this.#hold(this.#addRoot(link));
    });
    await eachNumber(this.roots.length, (index) => this.#markLocal(this.roots[index]));
    await eachNumber(graph.size, (link) => {
      if (graph.origins[link] === 'local' && !this.#rootOf.has(link)) this.#keepLocal(link);
    });
  }

  #addRoot(link: number): Root {
    const place = {link, number: this.#rootsEver.length, position: this.roots.length, now: this.#now};
    const root = new Root({graph: this.#graph, needed: this.#needed}, place);
    this.#rootsEver.push(root);
    this.roots.push(root);
    this.#rootOf.set(link, root);
    return root;
  }

  #hold(root: Root | undefined): void {
    if (!root) return;
    const {uses, ages, lastAccess} = this.#graph;
    const members = this.#graph.membersOf(root.link);
    for (const link of members) {
      this.#isReached.set(link, 1);
      root.uses = Math.max(root.uses, uses.at(link));
      root.age = Math.max(root.age, ages.at(link));
      root.lastUsedAt = Math.max(root.lastUsedAt, Math.min(this.#now, lastAccess.at(link)));
    }
    for (const inner of this.#rootsAmong(members, root)) inner.containers += 1;
    const blobs = this.#blobsOf(members);
    for (const blob of blobs) root.totalBytes += this.#needed.sizeOf(blob);
    root.memberCount = members.length;
    this.#needed.hold(root.number, blobs);
  }

  *#rootsAmong(members: readonly number[], except: Root): Generator<Root, void> {
    for (const link of members) {
      const root = this.#rootOf.get(link);
      if (root && root !== except) yield root;
    }
  }

  #blobsOf(members: readonly number[]): Set<number> {
    return blobsOf(this.#graph, this.#needed, members);
  }

  /** Of a pushed image everything is kept. */
  #markLocal(root: Root | undefined): void {
    if (!root || this.#graph.origins[root.link] !== 'local') return;
    const members = this.#keepRoots(root.link, 'local');
    for (const blob of this.#blobsOf(members)) this.#isLocal.set(blob, HELD);
  }

  /** Something that was pushed and belongs to a copy, like a signature of it, is kept without that. */
  #keepLocal(link: number): void {
    const members = this.#keepRoots(link, 'local');
    for (const blob of this.#blobsOf(members)) this.#holdLocal(blob);
  }

  #holdLocal(blob: number): void {
    if (this.#isLocal.at(blob) === HELD) return;
    this.#isLocal.set(blob, HELD);
    this.#needed.hold(KEEPER, [blob]);
  }

  /** @returns the members of the link, itself included */
  #keepRoots(link: number, reason: ImageRoot['kept']): number[] {
    const members = this.#graph.membersOf(link);
    for (const member of members) {
      const root = this.#rootOf.get(member);
      if (root) root.kept ??= reason;
    }
    return members;
  }

  async keep(protection: Protection): Promise<void> {
    const byRepository = new Map<string, Root[]>();
    await eachNumber(this.roots.length, (index) => {
      const root = this.roots[index];
      if (!root) return;
      const {repository, tags} = root;
      const name = fullName(repository);
      const others = byRepository.get(name);
      if (others) others.push(root);
      else byRepository.set(name, [root]);
      // A pin may name the manifest of one platform: the image that this belongs to stays with it.
      const isPinned = root.kept === undefined && protection.isPinned(repository, [...tags, ...root.members]);
      if (isPinned) this.#keepRoots(root.link, 'pinned');
    });
    const all = [...byRepository.values()];
    await eachNumber(all.length, (index) => this.#keepNewest(all[index] ?? [], protection));
  }

  /** @param roots of one repository */
  #keepNewest(roots: readonly Root[], protection: Protection): void {
    const [first] = roots;
    const count = first ? protection.newestKept(first.repository) : 0;
    if (count === 0) return;
    const copies = roots.filter(({isMember, kept}) => !isMember && kept !== 'local');
    const newest = copies.toSorted((a, b) => b.arrivedAt - a.arrivedAt).slice(0, count);
    for (const root of newest) this.#keepRoots(root.link, 'newest');
  }

  async findUnrooted(): Promise<void> {
    await eachNumber(this.#graph.digests.size, (digest) => {
      if (this.#isLocal.at(digest) === LOCAL && this.#needed.sizeOf(digest) > 0) this.#holdLocal(digest);
    });
    await eachNumber(this.#blobs.length, (index) => {
      const number = this.#blobs.at(index);
      if (this.#needed.holdersOf(number) > 0) return;
      const storedAt = Math.min(this.#now, this.#storedAt.at(index));
      this.unrooted.push({...this.#blob(number), storedAt});
    });
  }

  #blob(number: number): StoredBlob {
    return {digest: this.#graph.digests.digestOf(number), size: this.#needed.sizeOf(number)};
  }

  blobsOf(root: ImageRoot): (StoredBlob & {holders: number})[] {
    const blobs = [...this.#blobsOf(this.#graph.membersOf(this.#own(root).link))];
    return blobs.map((blob) => ({...this.#blob(blob), holders: this.#needed.holdersOf(blob)}));
  }

  blobsFreedBy(root: ImageRoot): StoredBlob[] {
    const {link} = this.#own(root);
    const blobs = [...this.#blobsOf(this.#graph.membersOf(link))];
    return blobs.filter((blob) => this.#needed.holdersOf(blob) === 1).map((blob) => this.#blob(blob));
  }

  remove(root: ImageRoot): Root[] {
    const removed = this.#own(root);
    if (removed.kept === 'local') throw new RangeError(`${removed.digest} is needed by what was pushed here`);
    const last = this.roots.pop();
    if (last && last !== removed) {
      this.roots[removed.position] = last;
      last.position = removed.position;
    }
    this.#rootOf.delete(removed.link);
    const members = this.#graph.membersOf(removed.link);
    const changed = new Set<Root>();
    for (const inner of this.#rootsAmong(members, removed)) {
      inner.containers -= 1;
      changed.add(inner);
    }
    for (const number of this.#needed.release(removed.number, this.#blobsOf(members))) {
      const owner = this.#rootsEver[number];
      if (owner) changed.add(owner);
    }
    return [...changed];
  }

  /** @throws RangeError for a root that is not here */
  #own(root: ImageRoot): Root {
    if (root instanceof Root && this.roots[root.position] === root) return root;
    throw new RangeError(`${root.digest} is not in this inventory`);
  }
}
