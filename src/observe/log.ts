import type {Config} from '../config.ts';
import type {EventMap, Events} from '../events.ts';
import {type Level, LINES} from './lines.ts';
import {describeError, scrub} from './scrub.ts';

/** One line of the log. */
interface Entry {
  level: Level;
  /** What happened, as a name for machines, e.g. `upstream.throttled`. */
  event: string;
  /** The same for people. */
  text: string;
  /** Its particulars; `id` is the request's. */
  facts: Record<string, unknown>;
}

export type Log = (entry: Entry) => void;

export interface LogDeps {
  /** Takes whole lines, newline included. */
  write(lines: string): void;
  /** Milliseconds since the epoch. */
  now(): number;
}

const RANK = {debug: 0, info: 1, warn: 2, error: 3, silent: 4} as const;

/**
 * A log of the configured level and format: a line of text for people, or an object of JSON for machines.
 * Credentials are cut out of every text.
 */
export async function createLog({level, format}: Config['log'], deps: LogDeps): Promise<Log> {
  const write = format === 'json' ? await createJsonWriter(deps) : createLineWriter(deps);
  return (entry) => {
    if (RANK[entry.level] >= RANK[level]) write(entry);
  };
}

/** Writes what one server tells into the log. */
export function logEvents(events: Events, log: Log): void {
  const subscribe = <Name extends keyof EventMap>(name: Name) => {
    const write = (event: EventMap[Name][0]) => {
      const [level, text] = LINES[name](event);
      log({level, event: name, text, facts: {...event}});
    };
    events.on(name, write as Parameters<typeof events.on<Name>>[1]);
  };
  for (const name of Object.keys(LINES)) subscribe(name as keyof EventMap);
}

/** Loads pino, which nobody waits for who reads the log himself. */
async function createJsonWriter({write, now}: LogDeps): Promise<Log> {
  const {pino} = await import('pino');
  const logger = pino(
    {
      level: 'debug',
      base: null,
      timestamp: () => `,"time":"${new Date(now()).toISOString()}"`,
      formatters: {level: (label) => ({level: label})},
    },
    {write},
  );
  return ({level, event, text, facts}) => logger[level]({event, ...scrubFacts(facts)}, scrub(text));
}

const scrubFacts = (facts: Entry['facts']): Entry['facts'] =>
  Object.fromEntries(
    Object.entries(facts).map(([key, value]) => {
      if (value instanceof Error) return [key, scrub(describeError(value))];
      return [key, typeof value === 'string' ? scrub(value) : value];
    }),
  );

function createLineWriter({write, now}: LogDeps): Log {
  return ({level, text, facts: {id}}) => {
    const time = new Date(now()).toISOString();
    const request = typeof id === 'string' ? ` [${printable(id)}]` : '';
    write(`${time} ${level.padEnd(5)}${request} ${printable(scrub(text))}\n`);
  };
}

/** Further lines are indented, and what a terminal would obey is written out. */
const printable = (text: string): string =>
  text
    .replace(/\r?\n/g, '\n    ')
    .replace(/[^\P{Cc}\n]/gu, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`);
