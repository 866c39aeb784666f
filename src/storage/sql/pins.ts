import type {Kysely} from 'kysely';
import {type ChangesOf, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type PinWrites = ReturnType<typeof compilePinWrites>;

/** The statements that change what eviction is told beside the content: pins, and the cache's age. */
export const compilePinWrites = (db: Kysely<Tables>) => ({
  putPin: statement((values: Tables['pin']) =>
    db
      .insertInto('pin')
      .values({
        registry: values.registry,
        name: values.name,
        reference: values.reference,
        at: values.at,
      })
      .onConflict((conflict) => conflict.columns(['registry', 'name', 'reference']).doNothing()),
  ),

  deletePin: statement((values: Omit<Tables['pin'], 'at'>) =>
    db
      .deleteFrom('pin')
      .where('registry', '=', values.registry)
      .where('name', '=', values.name)
      .where('reference', '=', values.reference),
  ),

  raiseCacheAge: statement((values: {age: number}) =>
    db
      .insertInto('cache_age')
      .values({key: 1, age: values.age})
      .onConflict((conflict) =>
        conflict
          .column('key')
          .doUpdateSet({age: (row) => row.ref('excluded.age')})
          .whereRef('cache_age.age', '<', 'excluded.age'),
      ),
  ),
});

export const pinChanges = (writes: PinWrites): ChangesOf<'pin'> & ChangesOf<'cache-age'> => ({
  'pin.put': ({pin: {registry, name, reference, at}}) => run(writes.putPin, {registry, name, reference, at}),
  'pin.delete': ({pin: {registry, name, reference}}) => run(writes.deletePin, {registry, name, reference}),
  'cache-age.put': ({age}) => run(writes.raiseCacheAge, {age}),
});
