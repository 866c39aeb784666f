import type {Kysely} from 'kysely';
import type {RepositoryName} from '../../oci/name.ts';
import {type AskTimes, fullName, type RepositoryKey, type RepositoryReads} from '../metadata.ts';
import {type ReadParts, run, type Steps, statement} from './statement.ts';
import type {Tables} from './tables.ts';

export const repositoryByName = (db: Kysely<Tables>) =>
  statement((values: {registry: string; name: RepositoryName}) =>
    db
      .selectFrom('repository')
      .select('id')
      .where('registry', '=', values.registry)
      .where('name', '=', values.name),
  );

export function createRepositoryReads({db, run, idOf}: ReadParts): RepositoryReads {
  const page = statement((values: {registry: string; after: RepositoryName; limit: number}) =>
    db
      .selectFrom('repository')
      .select('name')
      .where('registry', '=', values.registry)
      .where('name', '>', values.after)
      .orderBy('name')
      .limit(values.limit),
  );
  return {
    async repositories(registry, {after = '', limit}) {
      // `after` may be any text, and need not be a name.
      const rows = await run(page, {registry, after: after as RepositoryName, limit});
      return rows.map(({name}) => name);
    },

    hasRepository: async (repository) => (await idOf(repository)) !== undefined,
  };
}

export type RepositoryWrites = ReturnType<typeof compileRepositoryWrites>;

export const compileRepositoryWrites = (db: Kysely<Tables>) => ({
  repository: repositoryByName(db),

  newRepository: statement((values: {registry: string; name: RepositoryName}) =>
    db.insertInto('repository').values({registry: values.registry, name: values.name}).returning('id'),
  ),
});

/** The steps of a commit that find a repository's row. */
export class RepositoryIds {
  readonly #writes: RepositoryWrites;

  constructor(writes: RepositoryWrites) {
    this.#writes = writes;
  }

  *find({registry, name}: RepositoryKey): Steps<number | undefined> {
    const [row] = yield* run(this.#writes.repository, {registry, name});
    return row?.id;
  }

  *findOrCreate(key: RepositoryKey): Steps<number> {
    const known = yield* this.find(key);
    if (known !== undefined) return known;
    const {registry, name} = key;
    const [row] = yield* run(this.#writes.newRepository, {registry, name});
    if (!row) throw new Error(`the repository ${fullName(key)} could not be created`);
    return row.id;
  }

  /** Does nothing where the repository has no row, and creates none. */
  *inKnown(key: RepositoryKey, work: (repository: number) => Steps<unknown>): Steps<void> {
    const repository = yield* this.find(key);
    if (repository !== undefined) yield* work(repository);
  }

  /** Whether a test holds in a repository that has a row. */
  *holdsIn(key: RepositoryKey, test: (repository: number) => Steps<boolean>): Steps<boolean> {
    const repository = yield* this.find(key);
    return repository !== undefined && (yield* test(repository));
  }

  /** Whether no later answer of the upstream is known than that to a question asked at `askedAt`. */
  *isLatest(
    {repository: key, askedAt, now}: AskTimes & {repository: RepositoryKey},
    checkedAt: (repository: number) => Steps<readonly {checkedAt: number | null}[]>,
  ): Steps<boolean> {
    const repository = yield* this.find(key);
    if (repository === undefined) return true;
    const [row] = yield* checkedAt(repository);
    const known = row?.checkedAt ?? undefined;
    return known === undefined || known <= askedAt || known > now;
  }
}
