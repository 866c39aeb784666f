import {type AccessAnswer, checkAccess} from '../access-check.ts';
import type {Action} from '../caller.ts';
import {OciError} from '../oci/errors.ts';
import {type ConfigOptions, loadConfiguration} from './configuration.ts';
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

/**
 * `backref access check`: explains what a server with this configuration would decide.
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
  const question = {names: [own, ...others] as const, action, place, isLocal: flags.local ?? false};
  let answer: AccessAnswer;
  try {
    answer = checkAccess(loaded.config, question);
  } catch (error) {
    if (error instanceof OciError) return failed(error.message, flags, io);
    throw error;
  }
  io.stdout.write(flags.json ? `${JSON.stringify({result: describe(answer)})}\n` : textOf(answer));
  return answer.isAllowed ? 0 : DENIED;
}

const describe = ({isAllowed, reason, names, question, steps}: AccessAnswer): object => ({
  allowed: isAllowed,
  question,
  names,
  reason,
  rules: steps,
});

function textOf({isAllowed, reason, names, question, steps}: AccessAnswer): string {
  const asked = `${isAllowed ? 'allowed' : 'denied'}: ${names.join(', ')} to ${question}`;
  const rules = steps.map(({rule, text, match}) => `  rule ${rule} ${MISSED[match]} (${text})`);
  const isRobot = names.some((name) => name.startsWith('robot:'));
  const notes = isRobot
    ? ["A robot's token adds to this: it grants what no rule is about, and bounds what rules allow."]
    : [];
  return `${printable([asked, `because: ${reason}`, ...rules, ...notes].join('\n'))}\n`;
}
