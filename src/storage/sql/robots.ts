import type {Kysely} from 'kysely';
import type {RobotReads, RobotRecord} from '../metadata.ts';
import {type ChangesOf, type ReadParts, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type RobotRow = Tables['robot'];

export function createRobotReads({db, run}: Pick<ReadParts, 'db' | 'run'>): RobotReads {
  const all = statement((_values: Record<never, never>) =>
    db.selectFrom('robot').selectAll().orderBy('name'),
  );
  return {
    async robots() {
      return (await run(all, {})).map(robotOf);
    },
  };
}

const robotOf = (row: RobotRow): RobotRecord => ({
  name: row.name,
  id: row.id,
  secretHash: row.secret_hash,
  may: JSON.parse(row.may),
  on: JSON.parse(row.places),
  createdAt: row.created_at,
  expiresAt: row.expires_at ?? undefined,
  usedAt: row.used_at ?? undefined,
});

const rowOf = (robot: RobotRecord): RobotRow => ({
  name: robot.name,
  id: robot.id,
  secret_hash: robot.secretHash,
  may: JSON.stringify(robot.may),
  places: JSON.stringify(robot.on),
  created_at: robot.createdAt,
  expires_at: robot.expiresAt ?? null,
  used_at: robot.usedAt ?? null,
});

type RobotWrites = ReturnType<typeof compileRobotWrites>;

export const compileRobotWrites = (db: Kysely<Tables>) => ({
  putRobot: statement((values: RobotRow) =>
    db.insertInto('robot').values({
      name: values.name,
      id: values.id,
      secret_hash: values.secret_hash,
      may: values.may,
      places: values.places,
      created_at: values.created_at,
      expires_at: values.expires_at,
      used_at: values.used_at,
    }),
  ),

  deleteRobot: statement((values: {id: string}) => db.deleteFrom('robot').where('id', '=', values.id)),

  useRobot: statement((values: {id: string; at: number}) =>
    db
      .updateTable('robot')
      .set({used_at: values.at})
      .where('id', '=', values.id)
      .where((where) => where.or([where('used_at', 'is', null), where('used_at', '<', values.at)])),
  ),
});

export const robotChanges = (writes: RobotWrites): ChangesOf<'robot'> => ({
  'robot.put': ({robot}) => run(writes.putRobot, rowOf(robot)),
  'robot.delete': ({id}) => run(writes.deleteRobot, {id}),
  'robot.use': ({id, at}) => run(writes.useRobot, {id, at}),
});
