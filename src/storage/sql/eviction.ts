import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import {attachedTo} from '../../oci/referrers.ts';
import type {Change} from '../metadata.ts';
import {collect, type ManifestLinkKey, markUnlinked} from './manifest-changes.ts';
import {manifestId} from './manifest-ids.ts';
import type {Writes} from './metadata.ts';
import {evictReferrer, forgetList} from './referrer-changes.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, type PreconditionsOf, run, type Steps, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** The most evicted links that are remembered. There are never more than links, as both are counted now and then. */
const MAX_GHOSTS = 100_000;
/** After how many evicted links both are counted. */
const GHOSTS_PER_COUNT = 256;
/** Manifests that are looked at to find out whether one is still needed: authors decide how they refer to each other. */
const MAX_VISITED = 1000;
/** The same for those that name one manifest. */
const MAX_PARENTS = 100;
/** Sorts after every character that a digest may have. */
const LAST = '~';

export const compileEvictionWrites = (db: Kysely<Tables>) => ({
  ...compileUses(db),
  ...compileParents(db),
  ...compileGhosts(db),
});

const compileUses = (db: Kysely<Tables>) => ({
  countUse: statement((values: ManifestLinkKey & {at: number; age: number}) =>
    db
      .updateTable('repository_manifest')
      .set((row) => ({uses: row('uses', '+', 1), last_access: values.at, age: values.age}))
      .where('repository', '=', values.repository)
      .where('manifest', '=', manifestId(db, values.digest)),
  ),

  linkUses: statement((values: ManifestLinkKey) =>
    db
      .selectFrom('repository_manifest')
      .select(['origin', 'uses', 'last_access as lastAccess'])
      .where('repository', '=', values.repository)
      .where('manifest', '=', manifestId(db, values.digest)),
  ),
});

const compileParents = (db: Kysely<Tables>) => ({
  // SQLite goes through the tables of a cross join in the order in which they are written.
  namingManifests: statement((values: ManifestLinkKey & {limit: number}) =>
    db
      .selectFrom(
        db
          .selectFrom('reference')
          .crossJoin('repository_manifest as link')
          // A manifest may name another again and again. Its own column is in the order of the index.
          .select('reference.manifest')
          .distinct()
          .where('reference.child', '=', values.digest)
          .where('link.repository', '=', values.repository)
          .whereRef('link.manifest', '=', 'reference.manifest')
          .limit(values.limit)
          .as('page'),
      )
      .crossJoin('manifest')
      .select('manifest.digest')
      .whereRef('manifest.id', '=', 'page.manifest'),
  ),

  linkedSubjects: statement((values: ManifestLinkKey & {limit: number}) =>
    db
      .selectFrom('referrer')
      .crossJoin('manifest')
      .crossJoin('repository_manifest as link')
      .select('manifest.digest')
      .where('referrer.repository', '=', values.repository)
      .where('referrer.digest', '=', values.digest)
      .where('referrer.source', '=', 'content')
      .whereRef('manifest.digest', '=', 'referrer.subject')
      .where('link.repository', '=', values.repository)
      .whereRef('link.manifest', '=', 'manifest.id')
      .limit(values.limit),
  ),

  linkedBetween: statement((values: {repository: number; from: Digest; to: Digest; limit: number}) =>
    db
      .selectFrom('manifest')
      .crossJoin('repository_manifest as link')
      .select('manifest.digest')
      .where('manifest.digest', '>=', values.from)
      .where('manifest.digest', '<', values.to)
      .where('link.repository', '=', values.repository)
      .whereRef('link.manifest', '=', 'manifest.id')
      .limit(values.limit),
  ),

  tagsOn: statement((values: ManifestLinkKey) =>
    db
      .selectFrom('tag')
      .select(['name', 'origin'])
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),
});

const compileGhosts = (db: Kysely<Tables>) => ({
  addGhost: statement((values: ManifestLinkKey & {uses: number; at: number}) =>
    db
      .insertInto('ghost')
      .values({
        repository: values.repository,
        digest: values.digest,
        uses: values.uses,
        evicted_at: values.at,
      })
      .returning('id'),
  ),

  deleteGhost: statement((values: ManifestLinkKey) =>
    db.deleteFrom('ghost').where('repository', '=', values.repository).where('digest', '=', values.digest),
  ),

  /** How many links there are, if fewer than `limit`. */
  countLinks: statement((values: {limit: number}) =>
    db
      .selectFrom(
        db
          .selectFrom('repository_manifest')
          .select('manifest')
          // Holds for every row, and makes SQLite walk along the index.
          .where('repository', '>', 0)
          .limit(values.limit)
          .as('page'),
      )
      .select((row) => row.fn.countAll<number>().as('count')),
  ),

  /** Keeps the newest ones. */
  trimGhosts: statement((values: {kept: number}) =>
    db.deleteFrom('ghost').where('id', '<=', (ghosts) =>
      ghosts
        .selectFrom('ghost')
        .select('id')
        // The same.
        .where('id', '>', 0)
        .orderBy('id', 'desc')
        .limit(1)
        .offset(values.kept),
    ),
  ),
});

export const evictionChanges = (
  writes: Writes,
  repositories: RepositoryIds,
): Pick<ChangesOf<'manifest'>, 'manifest.used' | 'manifest.evict'> => ({
  'manifest.used': ({repository: key, digest, at, age}) =>
    repositories.inKnown(key, (repository) => run(writes.countUse, {repository, digest, at, age})),

  'manifest.evict': (change) =>
    repositories.inKnown(change.repository, (repository) => evict(writes, repository, change)),
});

export const evictionPreconditions = (
  writes: Writes,
  repositories: RepositoryIds,
): Pick<PreconditionsOf<'manifest'>, 'manifest.idle'> => ({
  'manifest.idle': ({repository: key, digest, since, now}) =>
    repositories.holdsIn(key, function* (repository) {
      const [link] = yield* run(writes.linkUses, {repository, digest});
      return link !== undefined && (link.lastAccess <= since || link.lastAccess > now);
    }),
});

type Eviction = Extract<Change, {type: 'manifest.evict'}>;

function* evict(writes: Writes, repository: number, {digest, root, at}: Eviction): Steps<void> {
  const key = {repository, digest};
  const [link] = yield* run(writes.linkUses, key);
  if (link?.origin !== 'upstream') return;
  if (digest === root) yield* removeNames(writes, key);
  if ((yield* hasName(writes, key)) || (yield* isHeld(writes, key))) return;
  yield* run(writes.unlinkCopy, key);
  yield* run(writes.deleteCopiedTagsOn, key);
  yield* evictReferrer(writes, repository, digest);
  yield* forgetList(writes, {repository, subject: digest});
  if (link.uses > 0) yield* remember(writes, {...key, uses: link.uses, at});
  yield* markUnlinked(writes, repository, digest);
  yield* collect(writes, digest);
}

/** Removes the names of an image root that came from the upstream, all but those that attach it to a linked manifest. */
function* removeNames(writes: Writes, key: ManifestLinkKey): Steps<void> {
  const {repository, digest} = key;
  for (const {name, origin} of yield* run(writes.tagsOn, key)) {
    if (origin === 'local') continue;
    const subjects = yield* attachedParents(writes, key, name);
    if (subjects.every((subject) => subject === digest))
      yield* run(writes.deleteTag, {repository, name, origin});
  }
}

/** Whether it carries a tag that makes it an image root, or that was pushed here. */
function* hasName(writes: Writes, key: ManifestLinkKey): Steps<boolean> {
  const tags = yield* run(writes.tagsOn, key);
  return tags.some(({name, origin}) => origin === 'local' || attachedTo(name) === undefined);
}

/**
 * Whether a manifest is a member of a linked one that stays: one that was pushed here, has a name, or is not in turn a
 * member of this manifest. By tags and subjects, manifests can be members of each other, and hold only each other. One
 * that is a member of too many to look at is held.
 */
function* isHeld(writes: Writes, key: ManifestLinkKey): Steps<boolean> {
  const {repository, digest} = key;
  /** Of each manifest above this one. */
  const parents = new Map<Digest, readonly Digest[]>();
  const waiting = yield* parentsOf(writes, key);
  for (const parent of waiting) {
    if (parent === digest || parents.has(parent)) continue;
    if (parents.size === MAX_VISITED) return true;
    const at = {repository, digest: parent};
    const above = yield* parentsOf(writes, at);
    if (above.length === 0 || (yield* hasName(writes, at)) || (yield* isPushed(writes, at))) return true;
    parents.set(parent, above);
    waiting.push(...above);
  }
  return membersAmong(parents, digest).size < parents.size;
}

/** Those of the manifests that are members of this one. @param parents of each of the manifests */
function membersAmong(parents: ReadonlyMap<Digest, readonly Digest[]>, digest: Digest): Set<Digest> {
  const below = new Map<Digest, Digest[]>();
  for (const [member, above] of parents) {
    for (const parent of above) {
      const known = below.get(parent);
      if (known) known.push(member);
      else below.set(parent, [member]);
    }
  }
  const members = new Set(below.get(digest));
  for (const member of members) for (const further of below.get(member) ?? []) members.add(further);
  members.delete(digest);
  return members;
}

function* isPushed(writes: Writes, key: ManifestLinkKey): Steps<boolean> {
  const [link] = yield* run(writes.linkUses, key);
  return link?.origin === 'local';
}

/** The linked manifests of the repository that a manifest is a member of: they name it, or it is attached to them. */
function* parentsOf(writes: Writes, key: ManifestLinkKey): Steps<Digest[]> {
  const limited = {...key, limit: MAX_PARENTS};
  const naming = yield* run(writes.namingManifests, limited);
  const subjects = yield* run(writes.linkedSubjects, limited);
  const parents = [...naming, ...subjects].map(({digest}) => digest);
  for (const {name} of yield* run(writes.tagsOn, key))
    parents.push(...(yield* attachedParents(writes, key, name)));
  return parents.filter((parent) => parent !== key.digest);
}

function* attachedParents(writes: Writes, {repository}: ManifestLinkKey, tag: Tag): Steps<Digest[]> {
  const prefix = attachedTo(tag);
  if (prefix === undefined) return [];
  const range = {from: prefix as Digest, to: `${prefix}${LAST}` as Digest};
  const linked = yield* run(writes.linkedBetween, {repository, ...range, limit: MAX_PARENTS});
  return linked.map(({digest}) => digest);
}

/** Remembers the uses of an evicted link, and forgets the oldest ones that are too many. */
function* remember(writes: Writes, ghost: ManifestLinkKey & {uses: number; at: number}): Steps<void> {
  const [added] = yield* run(writes.addGhost, ghost);
  if (!added || added.id % GHOSTS_PER_COUNT !== 0) return;
  const [links] = yield* run(writes.countLinks, {limit: MAX_GHOSTS});
  yield* run(writes.trimGhosts, {kept: links?.count ?? MAX_GHOSTS});
}
