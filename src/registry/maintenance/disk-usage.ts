import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import {fullName, type Metadata, type RepositoryKey} from '../../storage/metadata.ts';
import type {Capacity, Usage} from './capacity.ts';
import {createEvictionOrder, probationLimitOf} from './eviction-order.ts';
import type {Evictor} from './evictor.ts';
import type {ImageRoot, Inventory} from './inventory.ts';
import {type InventoryTask, takeInventoryFor} from './inventory-progress.ts';
import {eachNumber} from './inventory-rows.ts';

/** What one line of a usage report is about. */
export type UsageUnit = 'registry' | 'repository' | 'image';

/** What an image needs, or all images of a repository or a registry. */
export interface UsageLine {
  registry: string;
  /** Of a repository or an image. */
  repository?: string;
  /** Of an image. */
  digest?: Digest;
  tags?: readonly Tag[];
  images: number;
  /** Bytes of blobs that nothing else needs. */
  uniqueBytes: number;
  /** Bytes of blobs that others need as well. */
  sharedBytes: number;
  uses: number;
  /** As an ISO 8601 date. */
  lastUsed: string;
  /** Its place in the order of eviction, 1 for what goes next; of several images, that of the first. */
  place?: number;
  /** Why it is never evicted; of several images the reason of the first, where all are kept. */
  kept?: 'local' | 'pinned' | 'newest';
}

/** Bytes on the disk, blobs and transfers in blocks of the file system. */
export interface UsageTotals extends Pick<Usage, 'blobs' | 'spools' | 'quarantine' | 'database' | 'used'> {
  images: number;
  /** The most that may be used; missing where nothing limits it. */
  limit?: number;
  /** Where eviction begins. */
  high?: number;
  /** Blobs that no image needs. */
  unrooted: {blobs: number; bytes: number};
}

export interface UsageReport {
  /** Those that need most alone come first. */
  lines: UsageLine[];
  /** Those that are not listed. */
  more: {lines: number; uniqueBytes: number};
  totals: UsageTotals;
}

export interface UsageOptions extends InventoryTask {
  by: UsageUnit;
  /** How many lines are listed. */
  top: number;
}

/** What the disk is used for, and in which order images go. */
export interface DiskUsage {
  /** Looks at everything that is here, while the server goes on serving requests. @throws the signal's reason */
  run(options: UsageOptions): Promise<UsageReport>;
}

export interface DiskUsageParts {
  metadata: Metadata;
  capacity: Pick<Capacity, 'isCounted' | 'count' | 'measure'>;
  evictor: Pick<Evictor, 'protection'>;
  clock: Clock;
}

/** Roots that are taken out between two turns of the requests. */
const STEP = 200;

export const createDiskUsage = (parts: DiskUsageParts): DiskUsage => ({
  async run({by, top, ...task}) {
    const {metadata, capacity, evictor, clock} = parts;
    const protection = await evictor.protection();
    const inventory = await takeInventoryFor(task, {metadata, protection, now: clock.now()});
    if (!capacity.isCounted) await capacity.count(task.signal);
    const usage = await capacity.measure();
    const totals = totalsOf(usage, inventory);
    const images = inventory.roots.map((root) => ({root, line: lineOf(root)}));
    const bytes = by === 'image' ? undefined : await bytesByGroup(inventory, by);
    const places = await placesOf(inventory, usage.limit, task.signal);
    const lines = images.map(({root, line}) => placed(line, places.get(root)));
    const listed = bytes ? grouped(lines, by, bytes) : lines;
    listed.sort((a, b) => b.uniqueBytes - a.uniqueBytes || b.sharedBytes - a.sharedBytes);
    const rest = listed.slice(top);
    const uniqueBytes = rest.reduce((sum, line) => sum + line.uniqueBytes, 0);
    return {lines: listed.slice(0, top), more: {lines: rest.length, uniqueBytes}, totals};
  },
});

function totalsOf(usage: Usage, {roots, unrooted}: Inventory): UsageTotals {
  const {blobs, spools, quarantine, database, used, limit, high} = usage;
  return {
    images: roots.length,
    blobs,
    spools,
    quarantine,
    database,
    used,
    // JSON has no infinity.
    ...(Number.isFinite(limit) ? {limit: Math.floor(limit), high: Math.floor(high)} : {}),
    unrooted: {blobs: unrooted.length, bytes: unrooted.reduce((sum, {size}) => sum + size, 0)},
  };
}

const lineOf = ({
  repository: {registry, name},
  digest,
  tags,
  uniqueBytes,
  sharedBytes,
  uses,
  lastUsedAt,
  kept,
}: ImageRoot): UsageLine => ({
  registry,
  repository: name,
  digest,
  tags,
  images: 1,
  uniqueBytes,
  sharedBytes,
  uses,
  lastUsed: new Date(lastUsedAt).toISOString(),
  ...(kept ? {kept} : {}),
});

const placed = (line: UsageLine, place: number | undefined): UsageLine =>
  place === undefined ? line : {...line, place};

/** Takes the images out of the inventory in the order in which they would be evicted. */
async function placesOf(
  inventory: Inventory,
  limit: number,
  signal: AbortSignal,
): Promise<ReadonlyMap<ImageRoot, number>> {
  const order = createEvictionOrder(
    inventory.roots.filter(({kept}) => kept === undefined),
    {probationLimit: probationLimitOf(limit)},
  );
  const places = new Map<ImageRoot, number>();
  for (let next = order.next(); next; next = order.next()) {
    const {root} = next;
    places.set(root, places.size + 1);
    order.remove(root);
    for (const changed of inventory.remove(root)) if (order.has(changed)) order.update(changed);
    if (places.size % STEP === 0) await nextTurn();
    signal.throwIfAborted();
  }
  return places;
}

type GroupBytes = Pick<UsageLine, 'uniqueBytes' | 'sharedBytes'>;

const groupOf = ({registry, name}: RepositoryKey, by: UsageUnit): string =>
  by === 'registry' ? registry : fullName({registry, name});

/** Several images of a group may need a blob that nothing outside needs. */
async function bytesByGroup(inventory: Inventory, by: UsageUnit): Promise<Map<string, GroupBytes>> {
  const groups = Map.groupBy(inventory.roots, ({repository}) => groupOf(repository, by));
  const bytes = new Map<string, GroupBytes>();
  for (const [group, roots] of groups) bytes.set(group, await bytesTogether(inventory, roots));
  return bytes;
}

async function bytesTogether(inventory: Inventory, roots: readonly ImageRoot[]): Promise<GroupBytes> {
  /** How many of these images, and how many of all, need each blob. */
  const needs = new Map<Digest, {size: number; here: number; all: number}>();
  await eachNumber(roots.length, (index) => {
    const root = roots[index];
    if (!root) return;
    for (const {digest, size, holders} of inventory.blobsOf(root)) {
      const here = (needs.get(digest)?.here ?? 0) + 1;
      needs.set(digest, {size, here, all: holders});
    }
  });
  let uniqueBytes = 0;
  let sharedBytes = 0;
  for (const {size, here, all} of needs.values()) {
    if (here === all) uniqueBytes += size;
    else sharedBytes += size;
  }
  return {uniqueBytes, sharedBytes};
}

function grouped(
  lines: readonly UsageLine[],
  by: UsageUnit,
  bytes: ReadonlyMap<string, GroupBytes>,
): UsageLine[] {
  const groups = Map.groupBy(lines, ({registry, repository = ''}) =>
    by === 'registry' ? registry : `${registry}/${repository}`,
  );
  return [...groups].map(([group, members]) => {
    const {registry = '', repository = ''} = members[0] ?? {};
    const places = members.flatMap(({place}) => place ?? []);
    const kept = members.every((member) => member.kept) ? members[0]?.kept : undefined;
    return {
      registry,
      ...(by === 'repository' ? {repository} : {}),
      images: members.length,
      ...(bytes.get(group) ?? {uniqueBytes: 0, sharedBytes: 0}),
      uses: members.reduce((sum, {uses}) => sum + uses, 0),
      lastUsed: members.reduce((last, {lastUsed}) => (lastUsed > last ? lastUsed : last), ''),
      ...(places.length > 0 ? {place: places.reduce((a, b) => Math.min(a, b))} : {}),
      ...(kept ? {kept} : {}),
    };
  });
}
