import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import type {Origin, TagReads} from '../metadata.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, first, type PreconditionsOf, type ReadParts, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

export interface TagKey {
  repository: number;
  name: Tag;
  origin: Origin;
}

export interface TagsOn {
  repository: number;
  digest: Digest;
}

export function createTagReads({db, run, idOf}: ReadParts): TagReads {
  const queries = compileReads(db);
  return {
    async tag(repository, name) {
      const row = await first({run, idOf}, queries.tag, repository, {name});
      return row && {...row, name, goneAt: row.goneAt ?? undefined};
    },

    async tagsOn(key, digest) {
      const repository = await idOf(key);
      if (repository === undefined) return [];
      return (await run(queries.tagsOn, {repository, digest})).map(({name}) => name);
    },

    async tagList(repository) {
      const row = await first({run, idOf}, queries.tagList, repository, {});
      return row && {names: JSON.parse(row.names), checkedAt: row.checkedAt};
    },

    async localTags(key, {after = '', limit}) {
      const repository = await idOf(key);
      if (repository === undefined) return [];
      // `after` may be any text, and need not be a tag.
      const rows = await run(queries.localTags, {repository, after: after as Tag, limit});
      return rows.map(({name}) => name);
    },
  };
}

const compileReads = (db: Kysely<Tables>) => ({
  // "local" sorts before "upstream".
  tag: statement((values: {repository: number; name: Tag}) =>
    db
      .selectFrom('tag')
      .select(['digest', 'origin', 'checked_at as checkedAt', 'gone_at as goneAt'])
      .where('repository', '=', values.repository)
      .where('name', '=', values.name)
      .orderBy('origin')
      .limit(1),
  ),

  tagsOn: statement((values: TagsOn) =>
    db
      .selectFrom('tag')
      .select('name')
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),

  tagList: statement((values: {repository: number}) =>
    db
      .selectFrom('tag_list')
      .select(['names', 'checked_at as checkedAt'])
      .where('repository', '=', values.repository),
  ),

  localTags: statement((values: {repository: number; after: Tag; limit: number}) =>
    db
      .selectFrom('tag')
      .select('name')
      .where('repository', '=', values.repository)
      .where('origin', '=', 'local')
      .where('name', '>', values.after)
      .orderBy('name')
      .limit(values.limit),
  ),
});

export type TagWrites = ReturnType<typeof compileTagWrites>;

export const compileTagWrites = (db: Kysely<Tables>) => ({
  ...compileTagRows(db),
  ...compileTagChecks(db),
  ...compileTagsOn(db),
  ...compileTagList(db),
});

const compileTagRows = (db: Kysely<Tables>) => ({
  putTag: statement((values: TagKey & {digest: Digest; at: number}) =>
    db
      .insertInto('tag')
      .values({
        repository: values.repository,
        name: values.name,
        origin: values.origin,
        digest: values.digest,
        checked_at: values.at,
        gone_at: null,
      })
      .onConflict((conflict) =>
        conflict.columns(['repository', 'name', 'origin']).doUpdateSet({
          digest: (row) => row.ref('excluded.digest'),
          checked_at: (row) => row.ref('excluded.checked_at'),
          gone_at: null,
        }),
      ),
  ),

  /** A first time after `at` does not count: the clock has been set back since. */
  markTagGone: statement((values: {repository: number; name: Tag; at: number}) =>
    db
      .updateTable('tag')
      .set((row) => ({
        checked_at: values.at,
        gone_at: row.case().when('gone_at', '<=', values.at).then(row.ref('gone_at')).else(values.at).end(),
      }))
      .where('repository', '=', values.repository)
      .where('name', '=', values.name)
      .where('origin', '=', 'upstream'),
  ),

  deleteTag: statement((values: TagKey) =>
    db
      .deleteFrom('tag')
      .where('repository', '=', values.repository)
      .where('name', '=', values.name)
      .where('origin', '=', values.origin),
  ),
});

/** What preconditions ask. */
const compileTagChecks = (db: Kysely<Tables>) => ({
  tagDigest: statement((values: TagKey) =>
    db
      .selectFrom('tag')
      .select('digest')
      .where('repository', '=', values.repository)
      .where('name', '=', values.name)
      .where('origin', '=', values.origin),
  ),

  /** The time of the upstream's last answer about the tag. */
  tagCheckedAt: statement((values: {repository: number; name: Tag}) =>
    db
      .selectFrom('tag')
      .select('checked_at as checkedAt')
      .where('repository', '=', values.repository)
      .where('name', '=', values.name)
      .where('origin', '=', 'upstream'),
  ),
});

/** The tags that point at a manifest, for when it goes. */
const compileTagsOn = (db: Kysely<Tables>) => ({
  deleteTagsOn: statement((values: TagsOn) =>
    db.deleteFrom('tag').where('repository', '=', values.repository).where('digest', '=', values.digest),
  ),

  deleteCopiedTagsOn: statement((values: TagsOn) =>
    db
      .deleteFrom('tag')
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest)
      .where('origin', '=', 'upstream'),
  ),
});

const compileTagList = (db: Kysely<Tables>) => ({
  tagListCheckedAt: statement((values: {repository: number}) =>
    db.selectFrom('tag_list').select('checked_at as checkedAt').where('repository', '=', values.repository),
  ),

  deleteTagList: statement((values: {repository: number}) =>
    db.deleteFrom('tag_list').where('repository', '=', values.repository),
  ),

  putTagList: statement((values: {repository: number; names: string; at: number}) =>
    db
      .insertInto('tag_list')
      .values({repository: values.repository, names: values.names, checked_at: values.at})
      .onConflict((conflict) =>
        conflict.column('repository').doUpdateSet({
          names: (row) => row.ref('excluded.names'),
          checked_at: (row) => row.ref('excluded.checked_at'),
        }),
      ),
  ),
});

export const tagChanges = (
  writes: TagWrites,
  repositories: RepositoryIds,
): ChangesOf<'tag'> & ChangesOf<'tag-list'> => ({
  *'tag.put'({repository: key, name, origin, digest, at}) {
    const repository = yield* repositories.findOrCreate(key);
    yield* run(writes.putTag, {repository, name, origin, digest, at});
  },

  'tag.gone': ({repository: key, name, at}) =>
    repositories.inKnown(key, (repository) => run(writes.markTagGone, {repository, name, at})),

  'tag.delete': ({repository: key, name, origin}) =>
    repositories.inKnown(key, (repository) => run(writes.deleteTag, {repository, name, origin})),

  *'tag-list.put'({repository: key, names, at}) {
    const repository = yield* repositories.findOrCreate(key);
    yield* run(writes.putTagList, {repository, names: JSON.stringify(names), at});
  },

  'tag-list.delete': ({repository: key}) =>
    repositories.inKnown(key, (repository) => run(writes.deleteTagList, {repository})),
});

export const tagPreconditions = (
  writes: TagWrites,
  repositories: RepositoryIds,
): PreconditionsOf<'tag'> & PreconditionsOf<'tag-list'> => ({
  'tag.latest': (asked) =>
    repositories.isLatest(asked, (repository) => run(writes.tagCheckedAt, {repository, name: asked.name})),

  'tag-list.latest': (asked) =>
    repositories.isLatest(asked, (repository) => run(writes.tagListCheckedAt, {repository})),

  *'tag.is'({repository: key, name, origin, digest}) {
    const repository = yield* repositories.find(key);
    if (repository === undefined) return digest === undefined;
    const [row] = yield* run(writes.tagDigest, {repository, name, origin});
    return row?.digest === digest;
  },
});
