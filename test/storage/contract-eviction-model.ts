import type {ExecutionContext, TestFn} from 'ava';
import fc from 'fast-check';
import {type Digest, digestOf} from '../../src/oci/digest.ts';
import {parseName, type Tag} from '../../src/oci/name.ts';
import {attachedTo, edgeOf, fallbackTag} from '../../src/oci/referrers.ts';
import type {Change, Metadata, Origin, RepositoryKey} from '../../src/storage/metadata.ts';
import type {MetadataPlace} from './contract-metadata.ts';

const MANIFESTS = 7;
const BLOBS = 3;
const REPOSITORIES = 2;
/** More rows than a run has. */
const MANY = 1000;
const MEDIA_TYPE = 'application/vnd.oci.image.manifest.v1+json';

/** What a run begins with. Manifests refer to earlier ones only, as digests want it; tags attach any to any. */
interface Plan {
  manifests: {children: number[]; blobs: number[]; subject: number | undefined}[];
  links: {repository: number; manifest: number; origin: Origin}[];
  tags: {repository: number; manifest: number; origin: Origin; attachedTo: number | undefined}[];
  lists: {repository: number; subject: number; named: number[]}[];
  pushedBlobs: number[];
  evicted: {repository: number; manifest: number}[];
}

const indexBelow = (end: number) => fc.nat(end - 1);
const origin = fc.constantFrom<Origin>('upstream', 'upstream', 'upstream', 'local');
const repository = indexBelow(REPOSITORIES);
const manifest = indexBelow(MANIFESTS);
const some = <T>(each: fc.Arbitrary<T>, maxLength: number) => fc.array(each, {maxLength});

const plan: fc.Arbitrary<Plan> = fc.record({
  manifests: fc.tuple(
    ...Array.from({length: MANIFESTS}, (_, index) =>
      fc.record({
        children: index === 0 ? fc.constant<number[]>([]) : some(indexBelow(index), 2),
        blobs: some(indexBelow(BLOBS), 2),
        subject: index === 0 ? fc.constant(undefined) : fc.option(indexBelow(index), {nil: undefined}),
      }),
    ),
  ),
  links: fc.array(fc.record({repository, manifest, origin}), {minLength: 6, maxLength: 16}),
  tags: some(fc.record({repository, manifest, origin, attachedTo: fc.option(manifest, {nil: undefined})}), 6),
  lists: some(fc.record({repository, subject: manifest, named: some(manifest, 3)}), 3),
  pushedBlobs: some(indexBelow(BLOBS), 1),
  evicted: fc.array(fc.record({repository, manifest}), {minLength: 1, maxLength: 4}),
});

interface Stored {
  digest: Digest;
  bytes: Buffer;
  children: Digest[];
  blobs: Digest[];
  subject: Digest | undefined;
}

interface ModelTag {
  name: Tag;
  origin: Origin;
  digest: Digest;
}

/** One repository as the model sees it. */
interface ModelRepository {
  key: RepositoryKey;
  links: Map<Digest, Origin>;
  tags: ModelTag[];
}

interface Model {
  stored: Map<Digest, Stored>;
  repositories: ModelRepository[];
}

let runs = 0;

/** Manifests, blobs and repositories that no other run has. */
function contentOf({manifests}: Plan): {stored: Stored[]; blobs: Digest[]; keys: RepositoryKey[]} {
  runs += 1;
  const run = runs;
  const blobs = Array.from({length: BLOBS}, (_, index) => digestOf(Buffer.from(`blob ${run} ${index}`)));
  const stored: Stored[] = [];
  for (const [index, {children, blobs: named, subject}] of manifests.entries()) {
    const parts = {
      children: [...new Set(children)].map((child) => (stored[child] as Stored).digest),
      blobs: [...new Set(named)].map((blob) => blobs[blob] as Digest),
      subject: subject === undefined ? undefined : stored[subject]?.digest,
    };
    const bytes = Buffer.from(
      JSON.stringify({run, index, ...parts, subject: parts.subject && {digest: parts.subject}}),
    );
    stored.push({digest: digestOf(bytes), bytes, ...parts});
  }
  const keys = Array.from({length: REPOSITORIES}, (_, index) => ({
    registry: 'docker.io',
    name: parseName(`run${run}/${index}`),
  }));
  return {stored, blobs, keys};
}

const linkPut = (key: RepositoryKey, {digest, bytes, children, blobs}: Stored, from: Origin): Change => ({
  type: 'manifest.put',
  repository: key,
  digest,
  mediaType: MEDIA_TYPE,
  bytes,
  edge: edgeOf({digest, mediaType: MEDIA_TYPE, bytes}),
  references: [
    ...children.map((child) => ({digest: child, size: 1, kind: 'manifest' as const})),
    ...blobs.map((blob) => ({digest: blob, size: 1, kind: 'blob' as const})),
  ],
  origin: from,
  at: 1_000,
});

/** The members of a root from the top down: what a manifest names or has attached comes after it. */
function membersOf(model: Model, {links, tags}: ModelRepository, root: Digest): Digest[] {
  const below = (digest: Digest): Digest[] => {
    const named = model.stored.get(digest)?.children ?? [];
    const referring = [...links.keys()].filter((linked) => model.stored.get(linked)?.subject === digest);
    const attached = tags.filter(({name}) => attachedTo(name) === digest).map((tag) => tag.digest);
    return [...named, ...referring, ...attached].filter((member) => links.has(member));
  };
  const done = new Set<Digest>();
  const fromBelow: Digest[] = [];
  const visit = (digest: Digest): void => {
    if (done.has(digest)) return;
    done.add(digest);
    for (const member of below(digest)) visit(member);
    fromBelow.push(digest);
  };
  visit(root);
  return fromBelow.reverse();
}

function isMember(model: Model, {links, tags}: ModelRepository, member: Digest, of: Digest): boolean {
  if (member === of || !links.has(of)) return false;
  if (model.stored.get(of)?.children.includes(member)) return true;
  if (model.stored.get(member)?.subject === of) return true;
  return tags.some(({name, digest}) => digest === member && attachedTo(name) === of);
}

const isNamed = ({tags}: ModelRepository, digest: Digest): boolean =>
  tags.some((tag) => tag.digest === digest && (tag.origin === 'local' || attachedTo(tag.name) === undefined));

/** What is below a manifest, itself included. */
function closureOf(model: Model, within: ModelRepository, digest: Digest): Set<Digest> {
  const reached = new Set([digest]);
  for (const each of reached) {
    for (const member of within.links.keys()) if (isMember(model, within, member, each)) reached.add(member);
  }
  return reached;
}

/** Whether the manifest is below one that stays: found from the top, unlike in the implementation. */
function isHeld(model: Model, within: ModelRepository, digest: Digest): boolean {
  const below = closureOf(model, within, digest);
  return [...within.links].some(
    ([each, from]) =>
      each !== digest &&
      (from === 'local' || isNamed(within, each) || !below.has(each)) &&
      closureOf(model, within, each).has(digest),
  );
}

function evict(model: Model, within: ModelRepository, root: Digest, digest: Digest): void {
  if (within.links.get(digest) !== 'upstream') return;
  if (digest === root) {
    within.tags = within.tags.filter((tag) => {
      const subject = attachedTo(tag.name) as Digest | undefined;
      const isAttached = subject !== undefined && subject !== digest && within.links.has(subject);
      return tag.digest !== digest || tag.origin === 'local' || isAttached;
    });
  }
  if (isNamed(within, digest) || isHeld(model, within, digest)) return;
  within.links.delete(digest);
  within.tags = within.tags.filter((tag) => tag.digest !== digest);
}

/** Where the content of a run begins: behind that of the earlier ones. */
interface Position {
  link: number | undefined;
  tag: Parameters<Metadata['allTags']>[0];
}

const endOf = async (metadata: Metadata, start: Position): Promise<Position> => ({
  link: (await metadata.links(start.link, MANY)).at(-1)?.cursor ?? start.link,
  tag: (await metadata.allTags(start.tag, MANY)).at(-1)?.cursor ?? start.tag,
});

/** What the metadata have of the repositories of one run. */
async function foundIn(metadata: Metadata, start: Position, keys: readonly RepositoryKey[]) {
  const links = await metadata.links(start.link, MANY);
  const tags = await metadata.allTags(start.tag, MANY);
  return keys.map(({name}) => ({
    links: links
      .filter((link) => link.repository.name === name)
      .map((link) => `${link.digest} ${link.origin}`)
      .sort(),
    tags: tags
      .filter((tag) => tag.repository.name === name)
      .map((tag) => `${tag.name} ${tag.digest} ${tag.origin}`)
      .sort(),
  }));
}

const expectedOf = ({repositories}: Model) =>
  repositories.map(({links, tags}) => ({
    links: [...links].map(([digest, from]) => `${digest} ${from}`).sort(),
    tags: tags.map((tag) => `${tag.name} ${tag.digest} ${tag.origin}`).sort(),
  }));

/** Brings what the plan says into the metadata and a model. */
async function populate(metadata: Metadata, planned: Plan) {
  const {stored, blobs, keys} = contentOf(planned);
  const model: Model = {
    stored: new Map(stored.map((each) => [each.digest, each])),
    repositories: keys.map((key) => ({key, links: new Map(), tags: []})),
  };
  const changes: Change[] = [];
  for (const {repository: index, manifest: number, origin: from} of planned.links) {
    const within = model.repositories[index] as ModelRepository;
    const linked = stored[number] as Stored;
    if (within.links.get(linked.digest) !== 'local') within.links.set(linked.digest, from);
    changes.push(linkPut(within.key, linked, from));
  }
  for (const [place, tag] of planned.tags.entries()) {
    const within = model.repositories[tag.repository] as ModelRepository;
    const {digest} = stored[tag.manifest] as Stored;
    const subject = tag.attachedTo === undefined ? undefined : stored[tag.attachedTo]?.digest;
    const suffix = ['', '.sig', '.att'][place % 3] ?? '';
    const name = (subject ? `${fallbackTag(subject)}${suffix}` : `v${place}`) as Tag;
    const isTaken = within.tags.some((other) => other.name === name && other.origin === tag.origin);
    if (isTaken || !within.links.has(digest)) continue;
    within.tags.push({name, origin: tag.origin, digest});
    changes.push({type: 'tag.put', repository: within.key, name, digest, origin: tag.origin, at: 1_000});
  }
  for (const {repository: index, subject, named} of planned.lists) {
    changes.push({
      type: 'referrer-list.put',
      repository: keys[index] as RepositoryKey,
      subject: (stored[subject] as Stored).digest,
      source: 'api',
      descriptors: named.map((each) => ({
        mediaType: MEDIA_TYPE,
        digest: (stored[each] as Stored).digest,
        size: 1,
      })),
      at: 2_000,
    });
  }
  for (const index of planned.pushedBlobs) {
    changes.push({
      type: 'blob.link',
      repository: keys[0] as RepositoryKey,
      digest: blobs[index] as Digest,
      size: 1,
      origin: 'local',
      at: 1_000,
    });
  }
  await metadata.commit(changes);
  const linkedBefore = new Set(
    model.repositories.flatMap(({key, links}) => [...links.keys()].map((digest) => `${key.name} ${digest}`)),
  );
  return {model, stored, blobs, keys, linkedBefore};
}

type Populated = Awaited<ReturnType<typeof populate>>;

const rowsOf = async (metadata: Metadata, key: RepositoryKey, subject: Digest) =>
  (await metadata.referrers(key, subject, {limit: 100})).map(({digest}) => digest);

/** The lists of all subjects, as they are now. */
const listsOf = (metadata: Metadata, {stored, keys}: Populated) =>
  Promise.all(
    keys.flatMap((key) =>
      stored.map(async ({digest}) => ({
        key,
        subject: digest,
        list: await metadata.referrerList(key, digest),
        rows: await rowsOf(metadata, key, digest),
      })),
    ),
  );

/** A known list is as it was; another one has exactly the linked manifests that have this subject. */
async function checkLists(
  t: ExecutionContext,
  metadata: Metadata,
  populated: Populated,
  before: Awaited<ReturnType<typeof listsOf>>,
) {
  const {model} = populated;
  for (const [index, {key, subject, list, rows}] of (await listsOf(metadata, populated)).entries()) {
    const earlier = before[index];
    const within = model.repositories.find((each) => each.key === key) as ModelRepository;
    const linked = [...within.links.keys()].filter((digest) => model.stored.get(digest)?.subject === subject);
    if (list?.checkedAt !== undefined) t.deepEqual(rows, earlier?.rows, 'a known list is complete');
    else t.deepEqual([...rows].sort(), linked.sort(), 'an unknown list has what is linked');
    if (!within.links.has(subject) && earlier?.list?.checkedAt !== undefined) {
      const wasLinked = populated.linkedBefore.has(`${key.name} ${subject}`);
      if (wasLinked) t.is(list?.checkedAt, undefined, 'the list of an evicted subject is unknown');
    }
  }
}

/** What eviction must never do, whatever the model says. */
function checkPromises(
  t: ExecutionContext,
  model: Model,
  before: readonly {links: Map<Digest, Origin>; tags: ModelTag[]}[],
): void {
  for (const [index, earlier] of before.entries()) {
    const within = model.repositories[index] as ModelRepository;
    for (const [digest, from] of earlier.links)
      if (from === 'local') t.true(within.links.has(digest), 'nothing that was pushed goes');
    for (const linked of within.links.keys())
      for (const child of model.stored.get(linked)?.children ?? [])
        if (earlier.links.has(child)) t.true(within.links.has(child), 'nothing that a linked one names goes');
  }
}

/** Bytes and references are there exactly as long as a repository is linked to them, and blobs as long as named. */
async function checkContent(
  t: ExecutionContext,
  metadata: Metadata,
  planned: Plan,
  {model, stored, blobs}: Populated,
): Promise<void> {
  const isLinked = (digest: Digest) => model.repositories.some(({links}) => links.has(digest));
  for (const {digest, children, blobs: named} of stored) {
    const references = await metadata.references(digest);
    const expected = isLinked(digest) ? [...children, ...named] : [];
    t.deepEqual(
      references.map((reference) => reference.digest),
      expected,
    );
    t.is((await metadata.storedManifest(digest)) !== undefined, isLinked(digest));
  }
  for (const [index, blob] of blobs.entries()) {
    const isNeeded =
      planned.pushedBlobs.includes(index) ||
      stored.some(({digest, blobs: named}) => isLinked(digest) && named.includes(blob));
    t.is(await metadata.commit([], [{type: 'blob.unneeded', digest: blob}]), !isNeeded);
  }
}

/** What every implementation of the metadata port leaves of any content after evictions. */
export function evictionModelContract(
  test: TestFn,
  create: (t: ExecutionContext) => Promise<MetadataPlace>,
): void {
  test('eviction: whatever refers to what, exactly what nothing else needs goes', async (t) => {
    const metadata = await (await create(t)).open();
    t.teardown(() => metadata.close());
    let start: Position = {link: undefined, tag: undefined};
    await fc.assert(
      fc.asyncProperty(plan, async (planned) => {
        start = await endOf(metadata, start);
        const populated = await populate(metadata, planned);
        const {model, stored, keys} = populated;
        t.deepEqual(await foundIn(metadata, start, keys), expectedOf(model));
        const lists = await listsOf(metadata, populated);
        for (const {repository: index, manifest: number} of planned.evicted) {
          const within = model.repositories[index] as ModelRepository;
          const before = model.repositories.map(({links, tags}) => ({links: new Map(links), tags}));
          const root = (stored[number] as Stored).digest;
          const members = membersOf(model, within, root);
          for (const digest of members) evict(model, within, root, digest);
          await metadata.commit(
            members.map((digest) => ({
              type: 'manifest.evict',
              repository: within.key,
              root,
              digest,
              at: 3_000,
            })),
          );
          t.deepEqual(await foundIn(metadata, start, keys), expectedOf(model));
          checkPromises(t, model, before);
        }
        await checkLists(t, metadata, populated, lists);
        await checkContent(t, metadata, planned, populated);
      }),
      {numRuns: 100},
    );
  });
}
