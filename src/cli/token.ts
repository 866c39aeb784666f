import {parseDuration} from '../config/units.ts';
import type {ConfigOptions} from './configuration.ts';
import {humanAge} from './draw-tree.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, misused} from './report.ts';
import {drawTable} from './table.ts';

export interface TokenFlags extends ConfigOptions {
  json?: boolean;
}

export interface CreateFlags extends TokenFlags {
  /** Actions, separated by commas. */
  may: string;
  /** Patterns for places. */
  on: readonly string[];
  /** A duration, or `never`. */
  expires: string;
}

interface RobotRow {
  name: string;
  may: readonly string[];
  on: readonly string[];
  expires: string | null;
  isExpired: boolean;
  lastUsed: string | null;
}

const NO_STEPS = (): [number, string] => [0, ''];

/**
 * `backref token create`: makes a robot and prints its secret, which cannot be shown again.
 * @returns the exit code: 0; 1 when it was not made; 2 for wrong arguments or a faulty configuration
 */
export async function createToken(
  name: string,
  {may, on, expires, ...flags}: CreateFlags,
  io: CommandIo,
): Promise<number> {
  const expiresIn = expires === 'never' ? undefined : parseDuration(expires);
  if (expires !== 'never' && !expiresIn)
    return misused(`--expires "${expires}" is not a duration: write 12h, 90d or never.`, flags, io);
  const actions = may.split(',').map((action) => action.trim());
  return runCommand<never, RobotRow & {secret: string}>(flags, io, {
    wording: {progress: NO_STEPS, result: afterCreation},
    run: (commands) => commands.createRobot({name, may: actions, on, expiresIn}),
  });
}

const afterCreation = ({name, secret, expires}: RobotRow & {secret: string}): string =>
  [
    `${secret}`,
    `This is the secret of the robot "${name}", which ${expires === null ? 'does not expire' : `expires on ${expires.slice(0, 10)}`}. It is not stored, and cannot be shown again.`,
    `Log in with it as the password: docker login --username ${name} --password-stdin HOST`,
  ].join('\n');

/** `backref token ls`: lists the robots. @returns the exit code, as `createToken` */
export const listTokens = (flags: TokenFlags, io: CommandIo): Promise<number> =>
  runCommand<never, {robots: readonly RobotRow[]}>(flags, io, {
    wording: {progress: NO_STEPS, result: ({robots}) => listOf(robots, io.stdout.columns)},
    check: expectStore,
    run: (commands) => commands.robots(),
  });

function listOf(robots: readonly RobotRow[], width: number | undefined): string {
  if (robots.length === 0) return 'There are no robots. Make one with "backref token create".';
  const now = Date.now();
  const rows = robots.map(({name, may, on, expires, isExpired, lastUsed}) => [
    name,
    may.join(','),
    on.join(' '),
    expires === null ? 'never' : isExpired ? 'expired' : expires.slice(0, 10),
    lastUsed === null ? 'never' : humanAge(lastUsed, now),
  ]);
  const columns = ['ROBOT', 'MAY', 'ON', 'EXPIRES', 'LAST USED'].map((title) => ({
    title,
    align: 'start' as const,
  }));
  return drawTable(columns, rows, width).join('\n');
}

/** `backref token revoke`: ends a robot. @returns the exit code, as `createToken`; 1 for an unknown name */
export const revokeToken = (name: string, flags: TokenFlags, io: CommandIo): Promise<number> =>
  runCommand<never, RobotRow>(flags, io, {
    wording: {
      progress: NO_STEPS,
      result: (robot) =>
        `The robot "${robot.name}" is revoked: its secret and the tokens that it got are refused from now on.`,
    },
    check: expectStore,
    run: (commands) => commands.revokeRobot({name}),
  });
