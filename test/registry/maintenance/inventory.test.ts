import {createHash} from 'node:crypto';
import {join} from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import type {Digest} from '../../../src/oci/digest.ts';
import type {RepositoryName, Tag} from '../../../src/oci/name.ts';
import {fallbackTag} from '../../../src/oci/referrers.ts';
import {
  type ImageRoot,
  type Inventory,
  inventoryOf,
  type Protection,
  takeInventory,
} from '../../../src/registry/maintenance/inventory.ts';
import type {BlobRecord, EdgeRow, LinkRow, RepositoryKey, TagRow} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {manifestPut} from '../../storage/contract-metadata.ts';
import {createFolder} from '../../support/folder.ts';

const NOW = Date.UTC(2030, 0, 1);
const APP: RepositoryKey = {registry: 'docker.io', name: 'team/app' as RepositoryName};
const OTHER: RepositoryKey = {registry: 'docker.io', name: 'team/other' as RepositoryName};
const NOTHING: Protection = {isPinned: () => false, newestKept: () => 0};

const known = new Map<Digest, string>();

/** A digest that the test knows by a name; that of `long…` is a sha512 digest. */
function digestFor(name: string): Digest {
  const algorithm = name.startsWith('long') ? 'sha512' : 'sha256';
  const digest = `${algorithm}:${createHash(algorithm).update(name).digest('hex')}` as Digest;
  known.set(digest, name);
  return digest;
}
const nameOf = (digest: Digest): string => known.get(digest) ?? digest;

interface LinkOptions extends Partial<Pick<LinkRow, 'origin' | 'uses' | 'age' | 'linkedAt' | 'lastAccess'>> {
  in?: RepositoryKey;
  tags?: readonly string[];
  subject?: string;
  expiresAt?: number;
}

/** Rows as the metadata have them. Everything goes by the names of digests. */
class Rows {
  readonly #links: Omit<LinkRow, 'cursor' | 'size'>[] = [];
  readonly #references: {manifest: Digest; child: Digest}[] = [];
  readonly #tags: TagRow[] = [];
  readonly #edges: EdgeRow[] = [];
  readonly #blobs: BlobRecord[] = [];
  readonly #localBlobs: {digest: Digest}[] = [];

  /** A repository's link to a manifest that names these blobs and manifests. */
  link(name: string, contents: readonly string[], options: LinkOptions = {}): this {
    const {in: repository = APP, origin = 'upstream', tags = [], subject, expiresAt} = options;
    const {uses = 0, age = 0, linkedAt = NOW, lastAccess = linkedAt} = options;
    const digest = digestFor(name);
    this.#links.push({repository, digest, origin, linkedAt, lastAccess, uses, age, expiresAt});
    if (!this.#references.some(({manifest}) => manifest === digest))
      for (const content of contents) this.#references.push({manifest: digest, child: digestFor(content)});
    for (const tag of tags) this.#tags.push({repository, name: tag as Tag, digest, origin});
    if (subject) this.#edges.push({repository, subject: digestFor(subject), digest});
    return this;
  }

  blob(name: string, size: number, {state = 'ready', local = false} = {}): this {
    const digest = digestFor(name);
    this.#blobs.push({digest, size, state: state as BlobRecord['state'], storedAt: NOW - size});
    if (local) this.#localBlobs.push({digest});
    return this;
  }

  inventory(protection: Protection = NOTHING): Promise<Inventory> {
    const rows = {
      links: [this.#links],
      references: [this.#references],
      tags: [this.#tags],
      edges: [this.#edges],
      blobs: [this.#blobs],
      localBlobs: [this.#localBlobs],
    };
    return inventoryOf(rows, protection, NOW);
  }
}

const rootOf = (inventory: Inventory, name: string, repository = APP): ImageRoot => {
  const root = inventory.roots.find(
    (it) => it.digest === digestFor(name) && it.repository.name === repository.name,
  );
  if (!root) throw new Error(`${name} is not a root`);
  return root;
};

const rootNames = ({roots}: Inventory): string[] => roots.map(({digest}) => nameOf(digest)).toSorted();
const bytesOf = (inventory: Inventory): Record<string, [unique: number, shared: number]> =>
  Object.fromEntries(
    inventory.roots.map((root) => [nameOf(root.digest), [root.uniqueBytes, root.sharedBytes]]),
  );
const freedBy = (inventory: Inventory, name: string): string[] =>
  inventory
    .blobsFreedBy(rootOf(inventory, name))
    .map(({digest}) => nameOf(digest))
    .toSorted();
const membersOf = (inventory: Inventory, name: string): string[] =>
  rootOf(inventory, name).members.map(nameOf);

test('a base layer is shared until the other images that need it are removed', async (t) => {
  const inventory = await new Rows()
    .blob('base', 1000)
    .blob('one', 1)
    .blob('two', 2)
    .blob('three', 3)
    .link('first', ['base', 'one'], {tags: ['v1']})
    .link('second', ['base', 'two'], {tags: ['v2']})
    .link('third', ['base', 'three', 'three'], {in: OTHER})
    .inventory();

  t.deepEqual(bytesOf(inventory), {first: [1, 1000], second: [2, 1000], third: [3, 1000]});
  t.deepEqual(inventory.remove(rootOf(inventory, 'first')), []);
  t.deepEqual(bytesOf(inventory), {second: [2, 1000], third: [3, 1000]});
  const second = rootOf(inventory, 'second');
  t.deepEqual(inventory.remove(rootOf(inventory, 'third', OTHER)), [second]);
  t.deepEqual(bytesOf(inventory), {second: [1002, 0]});
  t.deepEqual(freedBy(inventory, 'second'), ['base', 'two']);
  t.is(second.requests, 3);
});

test('blobs that are not stored, or are being deleted, cost nothing', async (t) => {
  const inventory = await new Rows()
    .blob('here', 10)
    .blob('going', 20, {state: 'deleting'})
    .link('image', ['here', 'going', 'never pulled'])
    .inventory();
  t.deepEqual(bytesOf(inventory), {image: [10, 0]});
  t.deepEqual(inventory.unrooted, []);
});

test('the children of an index are its members, and one with a tag of its own is a root as well', async (t) => {
  const rows = new Rows().blob('a', 1).blob('b', 2).blob('c', 4);
  rows.link('index', ['amd', 'arm', 'not pulled'], {tags: ['latest']});
  rows.link('amd', ['a', 'c'], {tags: ['latest-amd']}).link('arm', ['b', 'c']);
  const inventory = await rows.inventory();

  t.deepEqual(rootNames(inventory), ['amd', 'index']);
  t.deepEqual(membersOf(inventory, 'index'), ['index', 'amd', 'arm']);
  t.deepEqual(bytesOf(inventory), {index: [2, 5], amd: [0, 5]});
  const amd = rootOf(inventory, 'amd');
  t.true(amd.isMember);
  t.deepEqual(inventory.remove(rootOf(inventory, 'index')), [amd]);
  t.false(amd.isMember);
  t.deepEqual(bytesOf(inventory), {amd: [5, 0]});
});

test('members come before what belongs to them, also where an index holds an index', async (t) => {
  const inventory = await new Rows()
    .link('outer', ['leaf', 'inner'])
    .link('inner', ['leaf'])
    .link('leaf', [])
    .link('signature', [], {subject: 'leaf'})
    .inventory();
  t.deepEqual(rootNames(inventory), ['outer']);
  t.deepEqual(membersOf(inventory, 'outer'), ['outer', 'inner', 'leaf', 'signature']);
});

test('referrers belong to their subject, and their referrers to them, each in its own repository', async (t) => {
  const rows = new Rows().blob('layer', 1).blob('sbom data', 2).blob('signature data', 4);
  rows.link('image', ['layer'], {tags: ['v1']});
  rows.link('sbom', ['sbom data'], {subject: 'image'});
  rows.link('signature', ['signature data'], {subject: 'sbom'});
  rows.link('sbom', ['sbom data'], {in: OTHER, subject: 'image'});
  const inventory = await rows.inventory();

  t.deepEqual(rootNames(inventory), ['image', 'sbom']);
  t.deepEqual(membersOf(inventory, 'image'), ['image', 'sbom', 'signature']);
  t.deepEqual(bytesOf(inventory), {image: [5, 2], sbom: [0, 2]});
});

test('what cosign and fallback tags attach belongs to the manifest whose digest they name', async (t) => {
  const rows = new Rows();
  for (const subject of ['image', 'long image']) {
    const tag = fallbackTag(digestFor(subject));
    rows.link(subject, [], {tags: [subject.replace(' ', '-')]}).link(`list of ${subject}`, [], {tags: [tag]});
  }
  const tag = fallbackTag(digestFor('image'));
  for (const suffix of ['sig', 'att', 'sbom']) rows.link(suffix, [], {tags: [`${tag}.${suffix}`]});
  rows.link('other', [], {tags: [`${tag}.txt`]});
  rows.link('of nobody', [], {tags: [`${fallbackTag(digestFor('not here'))}.sig`]});
  rows.link('of the other repository', [], {in: OTHER, tags: [tag]});
  const inventory = await rows.inventory();

  t.deepEqual(rootNames(inventory), ['image', 'long image', 'of nobody', 'of the other repository', 'other']);
  t.deepEqual(membersOf(inventory, 'image').toSorted(), ['att', 'image', 'list of image', 'sbom', 'sig']);
  t.deepEqual(membersOf(inventory, 'long image'), ['long image', 'list of long image']);
  t.deepEqual(rootOf(inventory, 'of nobody').tags, [`${fallbackTag(digestFor('not here'))}.sig` as Tag]);
});

test('manifests that tags attach to each other in a circle are one root', async (t) => {
  const inventory = await new Rows()
    .blob('layer', 7)
    .link('one', ['layer'], {tags: [fallbackTag(digestFor('two'))]})
    .link('two', [], {tags: [fallbackTag(digestFor('three'))]})
    .link('three', [], {tags: [fallbackTag(digestFor('one'))]})
    .link('itself', [], {tags: [fallbackTag(digestFor('itself'))]})
    .inventory();
  t.deepEqual(rootNames(inventory), ['itself', 'one']);
  t.deepEqual(membersOf(inventory, 'one').toSorted(), ['one', 'three', 'two']);
  t.deepEqual(freedBy(inventory, 'one'), ['layer']);
});

test('uses and times are those of the member that was used most, or last', async (t) => {
  const inventory = await new Rows()
    .link('index', ['child'], {uses: 1, age: 3, linkedAt: NOW - 9, lastAccess: NOW - 8})
    .link('child', [], {uses: 5, age: 2, linkedAt: NOW - 7, lastAccess: NOW - 6})
    .link('later', [], {linkedAt: NOW + 5, lastAccess: NOW + 6})
    .inventory();
  t.like(rootOf(inventory, 'index'), {uses: 5, age: 3, arrivedAt: NOW - 9, lastUsedAt: NOW - 6});
  t.like(rootOf(inventory, 'later'), {arrivedAt: NOW, lastUsedAt: NOW}, 'the clock was set back');
});

test('what was pushed is kept with everything below it, copies included', async (t) => {
  const rows = new Rows().blob('pushed layer', 1, {local: true}).blob('copied layer', 2).blob('base', 4);
  rows.link('pushed', ['pushed layer', 'copied child', 'copied image'], {origin: 'local', tags: ['v1']});
  rows.link('copied child', ['copied layer']).link('copied image', ['base'], {tags: ['base']});
  rows.link('copy', ['base'], {tags: ['v2']});
  const inventory = await rows.inventory();

  t.deepEqual(rootNames(inventory), ['copied image', 'copy', 'pushed']);
  t.is(rootOf(inventory, 'pushed').kept, 'local');
  t.is(rootOf(inventory, 'copied image').kept, 'local');
  t.is(rootOf(inventory, 'copy').kept, undefined);
  t.deepEqual(bytesOf(inventory), {pushed: [3, 4], 'copied image': [0, 4], copy: [0, 4]});
  t.throws(() => inventory.remove(rootOf(inventory, 'pushed')), {instanceOf: RangeError});
});

test('what was pushed for a copy is kept when the copy goes', async (t) => {
  const rows = new Rows().blob('layer', 1).blob('sbom data', 2, {local: true}).blob('copied data', 4);
  rows.link('image', ['layer'], {tags: ['v1']});
  rows.link('sbom', ['sbom data', 'copied data'], {origin: 'local', subject: 'image'});
  const inventory = await rows.inventory();

  t.deepEqual(membersOf(inventory, 'image'), ['image', 'sbom']);
  t.deepEqual(bytesOf(inventory), {image: [1, 6]});
  t.deepEqual(freedBy(inventory, 'image'), ['layer']);
  inventory.remove(rootOf(inventory, 'image'));
  t.deepEqual(inventory.roots, []);
});

test('blobs that no manifest names are unrooted unless they were pushed', async (t) => {
  const inventory = await new Rows()
    .blob('alone', 5)
    .blob('pushed', 6, {local: true})
    .blob('going', 7, {state: 'deleting'})
    .blob('named', 8)
    .link('image', ['named'])
    .inventory();
  t.deepEqual(inventory.unrooted, [{digest: digestFor('alone'), size: 5, storedAt: NOW - 5}]);
});

test('a list that was synthesized here is no image', async (t) => {
  const inventory = await new Rows()
    .link('image', [], {tags: ['v1']})
    .link('list', ['image'], {expiresAt: NOW + 1})
    .inventory();
  t.deepEqual(rootNames(inventory), ['image']);
  t.false(rootOf(inventory, 'image').isMember);
});

test('pins and the newest images of a repository are kept with all their members', async (t) => {
  const rows = new Rows();
  for (const [age, name] of ['newest', 'newer', 'older', 'oldest'].entries())
    rows.link(name, name === 'older' ? ['child'] : [], {tags: [name], linkedAt: NOW - age});
  rows.link('child', [], {tags: ['child'], linkedAt: NOW}).link('elsewhere', [], {in: OTHER});
  const inventory = await rows.inventory({
    isPinned: ({name}, references) => name === APP.name && references.includes('older' as Tag),
    newestKept: ({name}) => (name === APP.name ? 2 : 0),
  });
  const kept = inventory.roots.map(({digest, kept}) => [nameOf(digest), kept]);
  t.deepEqual(Object.fromEntries(kept), {
    newest: 'newest',
    newer: 'newest',
    older: 'pinned',
    child: 'pinned',
    oldest: undefined,
    elsewhere: undefined,
  });
});

test('a digest can be pinned', async (t) => {
  const inventory = await new Rows()
    .link('image', [])
    .inventory({...NOTHING, isPinned: (_, references) => references.includes(digestFor('image'))});
  t.is(rootOf(inventory, 'image').kept, 'pinned');
});

test('a pinned digest of one platform keeps the image that it belongs to', async (t) => {
  const inventory = await new Rows()
    .link('index', ['arm'], {tags: ['1']})
    .link('arm', [])
    .inventory({...NOTHING, isPinned: (_, references) => references.includes(digestFor('arm'))});
  t.is(rootOf(inventory, 'index').kept, 'pinned');
});

test('a root is removed once, and from its own inventory', async (t) => {
  const rows = new Rows().link('image', []).link('other', []);
  const [inventory, second] = [await rows.inventory(), await rows.inventory()];
  const image = rootOf(inventory, 'image');
  inventory.remove(image);
  t.deepEqual(rootNames(inventory), ['other']);
  t.throws(() => inventory.remove(image), {instanceOf: RangeError});
  t.throws(() => inventory.blobsFreedBy(rootOf(second, 'other')), {instanceOf: RangeError});
});

test('ten thousand digests in a row keep their numbers', async (t) => {
  const rows = new Rows();
  const layers = Array.from({length: 10_000}, (_, index) => `layer ${index}`);
  for (const [index, layer] of layers.entries()) rows.blob(layer, index + 1);
  rows.link('image', layers);
  const inventory = await rows.inventory();
  const freed = inventory.blobsFreedBy(rootOf(inventory, 'image'));
  t.deepEqual(new Set(freed.map(({digest, size}) => `${digest} ${size}`)).size, layers.length);
  for (const {digest, size} of freed) t.is(nameOf(digest), `layer ${size - 1}`);
});

test('an inventory is read from the metadata, page by page', async (t) => {
  const metadata = await openSqliteMetadata({path: join(await createFolder(t), 'meta.db')});
  t.teardown(() => metadata.close());
  const layers = Array.from({length: 1001}, (_, index) => ({
    digest: digestFor(`layer ${index}`),
    size: 1,
    kind: 'blob' as const,
  }));
  const image = manifestPut('image', {repository: APP, references: layers});
  const {digest} = image;
  const descriptor = {mediaType: 'text/plain', digest: manifestPut('referrer').digest, size: 8};
  const referrer = manifestPut('referrer', {repository: APP, edge: {subject: digest, descriptor}});
  const pushed = {repository: APP, digest: digestFor('pushed'), size: 5, at: NOW};
  await metadata.commit([
    image,
    referrer,
    {type: 'tag.put', repository: APP, name: 'v1' as Tag, digest, origin: 'upstream', at: NOW},
    ...layers.map(({digest, size}) => ({type: 'blob.put' as const, digest, size, at: NOW})),
    {type: 'blob.put', digest: digestFor('unrooted'), size: 3, at: NOW},
    {type: 'blob.put', ...pushed},
    {type: 'blob.link', origin: 'local', ...pushed},
  ]);
  await metadata.commit([{type: 'manifest.used', repository: APP, digest, at: 5000, age: 2.5}]);

  const inventory = await takeInventory(metadata, NOTHING, NOW);
  t.is(inventory.roots.length, 1);
  t.like(inventory.roots[0], {
    repository: APP,
    digest,
    tags: ['v1'],
    members: [digest, referrer.digest],
    uniqueBytes: 1001,
    uses: 1,
    age: 2.5,
    arrivedAt: 1000,
    lastUsedAt: 5000,
  });
  t.deepEqual(inventory.unrooted, [{digest: digestFor('unrooted'), size: 3, storedAt: NOW}]);
});

const MANIFESTS = 7;
const BLOBS = 5;
const manifest = fc.nat(MANIFESTS - 1);

/** A repository's manifest, that names some of those behind it, as it must have been made after them. */
const node = fc.record({
  manifests: fc.array(manifest, {maxLength: 2}),
  blobs: fc.array(fc.nat(BLOBS - 1), {maxLength: 3}),
  isTagged: fc.boolean(),
  isLocal: fc.oneof({weight: 5, arbitrary: fc.constant(false)}, fc.constant(true)),
  subject: fc.option(manifest),
  /** Whose fallback tag it has. */
  attachedTo: fc.option(manifest, {freq: 1}),
  repository: fc.constantFrom(APP, OTHER),
});
type Node = typeof node extends fc.Arbitrary<infer T> ? T : never;

function rowsOf(nodes: readonly Node[]): Rows {
  const rows = new Rows();
  for (let blob = 0; blob < BLOBS; blob++) rows.blob(`blob ${blob}`, 2 ** blob);
  for (const [
    index,
    {blobs, manifests, isTagged, isLocal, subject, attachedTo, repository},
  ] of nodes.entries()) {
    const children = manifests.filter((child) => child > index).map((child) => `manifest ${child}`);
    rows.link(`manifest ${index}`, [...blobs.map((blob) => `blob ${blob}`), ...children], {
      in: repository,
      origin: isLocal ? 'local' : 'upstream',
      tags: [
        ...(isTagged ? [`t${index}`] : []),
        ...(attachedTo === null ? [] : [fallbackTag(digestFor(`manifest ${attachedTo}`))]),
      ],
      ...(subject !== null && subject > index ? {subject: `manifest ${subject}`} : {}),
    });
  }
  return rows;
}

/** The manifest with everything that belongs to it, found in the plainest way. */
function naiveMembers(nodes: readonly Node[], root: number, found = new Set([root])): Set<number> {
  const from = nodes[root];
  for (const [index, to] of nodes.entries()) {
    const isChild = index > root && from?.manifests.includes(index);
    const isReferrer = to.subject === root && root > index;
    if (!isChild && !isReferrer && to.attachedTo !== root) continue;
    if (to.repository !== from?.repository || found.has(index)) continue;
    found.add(index);
    naiveMembers(nodes, index, found);
  }
  return found;
}

const bytesOfBlobs = (blobs: ReadonlySet<number>): number =>
  [...blobs].reduce((sum, blob) => sum + 2 ** blob, 0);

/** Compares every root with the blobs of its members, less those that another root or a pushed manifest needs. */
function agrees(inventory: Inventory, nodes: readonly Node[]): boolean {
  const {roots} = inventory;
  const numberOf = (digest: Digest) => Number(nameOf(digest).slice('manifest '.length));
  const blobsOf = (members: Iterable<number>) => [...members].flatMap((member) => nodes[member]?.blobs ?? []);
  const blobsOfRoot = ({digest}: ImageRoot) => blobsOf(naiveMembers(nodes, numberOf(digest)));
  const pushed = nodes.flatMap(({isLocal}, index) => (isLocal ? blobsOf(naiveMembers(nodes, index)) : []));
  return roots.every((root) => {
    const members = naiveMembers(nodes, numberOf(root.digest));
    const needed = new Set(roots.filter((other) => other !== root).flatMap(blobsOfRoot));
    if (!nodes[numberOf(root.digest)]?.isLocal) for (const blob of pushed) needed.add(blob);
    const all = new Set(blobsOf(members));
    const unique = bytesOfBlobs(new Set([...all].filter((blob) => !needed.has(blob))));
    const freed = inventory.blobsFreedBy(root).reduce((sum, {size}) => sum + size, 0);
    return (
      root.members.length === members.size &&
      root.members.every((member) => members.has(numberOf(member))) &&
      root.uniqueBytes === unique &&
      freed === unique &&
      root.sharedBytes === bytesOfBlobs(all) - unique
    );
  });
}

test('members and unique bytes agree with a naive model, whatever is removed in whatever order', async (t) => {
  const nodes = fc.array(node, {minLength: 1, maxLength: MANIFESTS});
  await fc.assert(
    fc.asyncProperty(nodes, fc.array(fc.nat()), async (all, order) => {
      const inventory = await rowsOf(all).inventory();
      const reached = new Set(inventory.roots.flatMap(({members}) => members));
      if (reached.size !== all.length) return false;
      for (;;) {
        if (!agrees(inventory, all)) return false;
        const removable = inventory.roots.filter(({kept}) => kept !== 'local');
        const next = removable[(order.shift() ?? 0) % removable.length];
        if (!next) return true;
        inventory.remove(next);
      }
    }),
    {numRuns: 300},
  );
  t.pass();
});
