import type {Kysely} from 'kysely';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** The statements of commits that concern leases. */
export function compileLeaseWrites(db: Kysely<Tables>) {
  return {
    lease: statement((values: {key: string}) =>
      db.selectFrom('lease').select(['owner', 'until']).where('key', '=', values.key),
    ),

    putLease: statement((values: {key: string; owner: string; until: number}) =>
      db
        .insertInto('lease')
        .values({key: values.key, owner: values.owner, until: values.until})
        .onConflict((conflict) =>
          conflict.column('key').doUpdateSet((row) => ({
            owner: row.ref('excluded.owner'),
            until: row.ref('excluded.until'),
          })),
        ),
    ),

    deleteLease: statement((values: {key: string; owner: string}) =>
      db.deleteFrom('lease').where('key', '=', values.key).where('owner', '=', values.owner),
    ),
  };
}
