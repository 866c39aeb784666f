import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {PullReads, PullRecord} from '../metadata.ts';
import {type ChangesOf, type ReadParts, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type PullRow = Tables['pull'];

export function createPullReads({db, run}: Pick<ReadParts, 'db' | 'run'>): PullReads {
  const byDigest = statement((values: {digest: Digest; limit: number}) =>
    db
      .selectFrom('pull')
      .selectAll()
      .where('digest', '=', values.digest)
      .orderBy('last_at', 'desc')
      .limit(values.limit),
  );
  const beyond = statement((values: {keep: number}) =>
    db.selectFrom('pull').select('last_at').orderBy('last_at', 'desc').limit(1).offset(values.keep),
  );
  return {
    async lastPullBeyond(keep) {
      const [row] = await run(beyond, {keep});
      return row?.last_at;
    },

    async pullsOf(digest, limit) {
      return (await run(byDigest, {digest, limit})).map(pullOf);
    },
  };
}

const pullOf = ({
  digest,
  caller,
  registry,
  name,
  address,
  first_at,
  last_at,
  pulls,
}: PullRow): PullRecord => ({
  digest,
  caller,
  repository: {registry, name},
  address: address ?? undefined,
  first: first_at,
  last: last_at,
  pulls,
});

type PullWrites = ReturnType<typeof compilePullWrites>;

export const compilePullWrites = (db: Kysely<Tables>) => ({
  putPull: statement((values: PullRow) =>
    db
      .insertInto('pull')
      .values({
        digest: values.digest,
        caller: values.caller,
        registry: values.registry,
        name: values.name,
        address: values.address,
        first_at: values.first_at,
        last_at: values.last_at,
        pulls: values.pulls,
      })
      .onConflict((conflict) =>
        conflict.columns(['digest', 'caller', 'registry', 'name']).doUpdateSet((row) => ({
          address: row.ref('excluded.address'),
          last_at: row.ref('excluded.last_at'),
          pulls: row('pull.pulls', '+', row.ref('excluded.pulls')),
        })),
      ),
  ),

  forgetPulls: statement((values: {until: number}) =>
    db.deleteFrom('pull').where('last_at', '<=', values.until),
  ),
});

export const pullChanges = (writes: PullWrites): ChangesOf<'pull'> => ({
  'pull.put': ({pull: {digest, caller, repository, address, first, last, pulls}}) =>
    run(writes.putPull, {
      digest,
      caller,
      registry: repository.registry,
      name: repository.name,
      address: address ?? null,
      first_at: first,
      last_at: last,
      pulls,
    }),
  'pull.forget': ({until}) => run(writes.forgetPulls, {until}),
});
