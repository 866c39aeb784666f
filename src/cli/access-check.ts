import {type AccessAnswer, checkAccess} from '../access-check.ts';
import type {Action, Grant} from '../caller.ts';
import type {Config} from '../config.ts';
import {OciError} from '../oci/errors.ts';
import {type ConfigOptions, loadConfiguration} from './configuration.ts';
import {expectStore, withCommands} from './live-commands.ts';
import {type CommandIo, failed, misused, printable} from './report.ts';

interface AccessCheckFlags extends ConfigOptions {
  as: string;
  local?: boolean;
  json?: boolean;
}

const ACTIONS: readonly Action[] = ['pull', 'push', 'delete', 'attach', 'admin'];
const isAction = (text: string): text is Action => ACTIONS.some((action) => action === text);

/** What a rule is not about. */
const MISSED = {
  decides: 'decides',
  caller: 'is not about this caller',
  place: 'is not about this place',
  tag: 'is about other tags',
};

const DENIED = 1;

/** What is known of the token of a robot. */
interface RobotToken {
  /** Undefined where the token could not be found. */
  readonly grant: Grant | undefined;
  /** Why it grants nothing, although it was found. */
  readonly ended?: string;
  readonly note: string;
}

/**
 * `backref access check`: explains what a server with this configuration would decide. Where there is a store, the token
 * of a robot is looked up in it, beside its server if one is running.
 * @returns the exit code: 0 when it is allowed; 1 when it is denied, and for a place that is not configured; 2 for wrong
 * arguments and a faulty configuration.
 */
export async function accessCheck(
  action: string,
  place: string | undefined,
  flags: AccessCheckFlags,
  io: CommandIo,
): Promise<number> {
  const [own, ...others] = flags.as.split(',').filter((name) => name !== '');
  if (own === undefined) return misused('--as names nobody: write --as user:alice,group:dev', flags, io);
  if (!isAction(action))
    return misused(`"${action}" is not an action: write one of ${ACTIONS.join(', ')}`, flags, io);
  const loaded = await loadConfiguration(flags, io);
  if (typeof loaded === 'number') return loaded;
  const token = own.startsWith(ROBOT)
    ? await robotToken(own.slice(ROBOT.length), loaded.config, io)
    : undefined;
  const names = [own, ...others] as const;
  const question = {names, action, place, isLocal: flags.local ?? false, bound: token?.grant};
  let answer: AccessAnswer;
  try {
    answer = checkAccess(loaded.config, question);
  } catch (error) {
    if (error instanceof OciError) return failed(error.message, flags, io);
    throw error;
  }
  if (token?.ended !== undefined) answer = {...answer, isAllowed: false, reason: token.ended};
  io.stdout.write(
    flags.json ? `${JSON.stringify({result: describe(answer, token)})}\n` : textOf(answer, token),
  );
  return answer.isAllowed ? 0 : DENIED;
}

const ROBOT = 'robot:';

/** Looks a robot up in the store of the configuration, if there is one. */
async function robotToken(name: string, config: Config, io: CommandIo): Promise<RobotToken> {
  const unknown = (why: string): RobotToken => ({
    grant: undefined,
    note: `${why}. A robot's token adds to this: it grants what no rule is about, and bounds what rules allow.`,
  });
  try {
    await expectStore(config);
  } catch {
    return unknown('There is no store to look the token up in');
  }
  try {
    const {robots} = await withCommands(config, io, (commands) => commands.robots());
    const robot = robots.find((one) => one.name === name);
    if (!robot) return unknown(`The store has no robot "${name}"`);
    const {may, on, expires, isExpired} = robot;
    const note = `Its token: may ${may.join(', ')}; on ${on.join(', ')}; expires ${expires ?? 'never'}.`;
    const ended = isExpired ? {ended: `the token of ${ROBOT}${name} has expired`} : {};
    return {grant: {may: may as Action[], on}, note, ...ended};
  } catch (error) {
    return unknown(`The store cannot be read (${error instanceof Error ? error.message : String(error)})`);
  }
}

const describe = (
  {isAllowed, reason, names, question, steps}: AccessAnswer,
  token: RobotToken | undefined,
): object => ({
  allowed: isAllowed,
  question,
  names,
  reason,
  rules: steps,
  ...(token ? {token: token.grant ?? null} : {}),
});

function textOf(
  {isAllowed, reason, names, question, steps}: AccessAnswer,
  token: RobotToken | undefined,
): string {
  const asked = `${isAllowed ? 'allowed' : 'denied'}: ${names.join(', ')} to ${question}`;
  const rules = steps.map(({rule, text, match}) => `  rule ${rule} ${MISSED[match]} (${text})`);
  const notes = token ? [token.note] : [];
  return `${printable([asked, `because: ${reason}`, ...rules, ...notes].join('\n'))}\n`;
}
