import type {ExpressionBuilder, Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {ListSource, ReferrerRecord} from '../metadata.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** One subject's list in one repository. */
export interface ListKey {
  repository: number;
  subject: Digest;
}

/** What of a referrer may change while it keeps its place. `listed` is 0 or 1. */
export interface ReferrerContent {
  artifactType: string;
  descriptor: string;
  source: ReferrerRecord['source'];
  listed: number;
}

/** The statements of commits that concern referrers. */
export type ReferrerWrites = ReturnType<typeof compileReferrerWrites>;

export const compileReferrerWrites = (db: Kysely<Tables>) => ({
  ...compileList(db),
  ...compileForgetting(db),
  ...compileRowForgetting(db),
  ...compileListRepair(db),
  ...compileRows(db),
  ...compileRowChanges(db),
});

/** What a new list begins above. */
const floor = <Table extends keyof Tables>(
  row: ExpressionBuilder<Tables, Table>,
  db: Kysely<Tables>,
  column: 'version' | 'seq',
) => row.fn.coalesce(db.selectFrom('referrer_list_floor').select(column).where('key', '=', 1), row.val(0));

const compileList = (db: Kysely<Tables>) => ({
  /**
   * Makes the list if there is none, and renews its version. `nextSeq` is one more than the number of referrers that
   * are about to be added; `amended` is 1 when an existing one has changed or is gone, else 0; without `checkedAt` and
   * `source` those stay. Gives the list's new `next_seq`.
   *
   * A new list begins above all that were deleted, so that what was read of an earlier one of the same subject is neither
   * taken for it nor goes on in the middle of it.
   */
  touchList: statement(
    (
      values: ListKey & {
        nextSeq: number;
        amended: 0 | 1;
        checkedAt: number | null;
        source: ListSource | null;
      },
    ) =>
      db
        .insertInto('referrer_list')
        .values((row) => ({
          repository: values.repository,
          subject: values.subject,
          next_seq: row(floor(row, db, 'seq'), '+', values.nextSeq),
          version: row(floor(row, db, 'version'), '+', 1),
          amended: row
            .case()
            .when(floor(row, db, 'version'), '>', 0)
            .then(row(floor(row, db, 'version'), '+', 1))
            .else(values.amended)
            .end(),
          checked_at: values.checkedAt,
          source: values.source,
        }))
        .onConflict((conflict) =>
          conflict.columns(['repository', 'subject']).doUpdateSet((row) => ({
            next_seq: row('referrer_list.next_seq', '+', row(row.val(values.nextSeq), '-', 1)),
            version: row('referrer_list.version', '+', 1),
            amended: row
              .case()
              .when(row.val(values.amended), '=', 1)
              .then(row('referrer_list.version', '+', 1))
              .else(row.ref('referrer_list.amended'))
              .end(),
            checked_at: row.fn.coalesce('excluded.checked_at', 'referrer_list.checked_at'),
            source: row.fn.coalesce('excluded.source', 'referrer_list.source'),
          })),
        )
        .returning('next_seq as nextSeq'),
  ),

  referrerListCheckedAt: statement((values: ListKey) =>
    db
      .selectFrom('referrer_list')
      .select('checked_at as checkedAt')
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject),
  ),
});

/** What becomes of a list whose subject is evicted. */
const compileForgetting = (db: Kysely<Tables>) => ({
  forgetAnswer: statement((values: ListKey) =>
    db
      .updateTable('referrer_list')
      .set((row) => ({
        checked_at: null,
        source: null,
        version: row('version', '+', 1),
        amended: row('version', '+', 1),
      }))
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject),
  ),

  deleteList: statement((values: ListKey) =>
    db
      .deleteFrom('referrer_list')
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .returning(['version', 'next_seq as nextSeq']),
  ),

  raiseListFloor: statement((values: {version: number; seq: number}) =>
    db
      .insertInto('referrer_list_floor')
      .values({key: 1, version: values.version, seq: values.seq})
      .onConflict((conflict) =>
        conflict.column('key').doUpdateSet((row) => ({
          version: row
            .case()
            .when('referrer_list_floor.version', '>', row.ref('excluded.version'))
            .then(row.ref('referrer_list_floor.version'))
            .else(row.ref('excluded.version'))
            .end(),
          seq: row
            .case()
            .when('referrer_list_floor.seq', '>', row.ref('excluded.seq'))
            .then(row.ref('referrer_list_floor.seq'))
            .else(row.ref('excluded.seq'))
            .end(),
        })),
      ),
  ),
});

const compileRowForgetting = (db: Kysely<Tables>) => ({
  removeUpstreamReferrers: statement((values: ListKey) =>
    db
      .deleteFrom('referrer')
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('source', '!=', 'content'),
  ),

  unlistReferrers: statement((values: ListKey) =>
    db
      .updateTable('referrer')
      .set({listed: 0})
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('listed', '=', 1),
  ),

  anyReferrer: statement((values: ListKey) =>
    db
      .selectFrom('referrer')
      .select('seq')
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .limit(1),
  ),

  /** The subjects that a linked manifest names itself. */
  ownSubjects: statement((values: {repository: number; digest: Digest}) =>
    db
      .selectFrom('referrer')
      .select(['subject', 'seq'])
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest)
      .where('source', '=', 'content'),
  ),
});

const compileListRepair = (db: Kysely<Tables>) => ({
  /**
   * Makes the list if there is none, with a version above all that a lost row can have had, and gives its next referrer
   * a place behind all existing ones.
   */
  mendList: statement((values: ListKey & {version: number}) =>
    db
      .insertInto('referrer_list')
      .columns(['repository', 'subject', 'next_seq', 'version', 'amended'])
      .expression((from) =>
        from
          .selectFrom('referrer')
          .select((row) => [
            row.val(values.repository).as('repository'),
            row.val(values.subject).as('subject'),
            row(row.fn.coalesce(row.fn.max('seq'), row.val(0)), '+', 1).as('next_seq'),
            row.val(values.version).as('version'),
            row.val(values.version).as('amended'),
          ])
          .where('repository', '=', values.repository)
          .where('subject', '=', values.subject),
      )
      .onConflict((conflict) =>
        conflict
          .columns(['repository', 'subject'])
          .doUpdateSet((row) => ({next_seq: row.ref('excluded.next_seq')}))
          .whereRef('referrer_list.next_seq', '<', 'excluded.next_seq'),
      ),
  ),
});

const compileRows = (db: Kysely<Tables>) => ({
  listedReferrers: statement((values: ListKey) =>
    db
      .selectFrom('referrer')
      .select(['seq', 'digest', 'descriptor', 'source', 'listed'])
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject),
  ),

  referrer: statement((values: ListKey & {digest: Digest}) =>
    db
      .selectFrom('referrer')
      .select(['seq', 'descriptor', 'source', 'listed'])
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest)
      .where('subject', '=', values.subject),
  ),
});

const compileRowChanges = (db: Kysely<Tables>) => ({
  addReferrer: statement((values: ListKey & ReferrerContent & {seq: number; digest: Digest}) =>
    db.insertInto('referrer').values({
      repository: values.repository,
      subject: values.subject,
      seq: values.seq,
      digest: values.digest,
      artifact_type: values.artifactType,
      descriptor: values.descriptor,
      source: values.source,
      listed: values.listed,
    }),
  ),

  changeReferrer: statement((values: ListKey & ReferrerContent & {seq: number}) =>
    db
      .updateTable('referrer')
      .set({
        artifact_type: values.artifactType,
        descriptor: values.descriptor,
        source: values.source,
        listed: values.listed,
      })
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('seq', '=', values.seq),
  ),

  markListed: statement((values: ListKey & {seq: number; listed: number}) =>
    db
      .updateTable('referrer')
      .set({listed: values.listed})
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('seq', '=', values.seq),
  ),

  removeReferrer: statement((values: ListKey & {seq: number}) =>
    db
      .deleteFrom('referrer')
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('seq', '=', values.seq),
  ),

  subjectsOf: statement((values: {repository: number; digest: Digest}) =>
    db
      .selectFrom('referrer')
      .select(['subject', 'seq'])
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),
});
