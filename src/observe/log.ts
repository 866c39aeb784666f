import type {Logger} from 'pino';
import type {Config} from '../config.ts';
import type {EventMap, Events, LoggedEvent} from '../events.ts';
import {describeError, type Level, LINES, redact} from './lines.ts';

/** One line of the log. */
interface LogEntry {
  level: Level;
  /** What happened, for machines, e.g. `upstream.throttled`. */
  event: string;
  /** What happened, for people. Made only where the level is logged. */
  text: string | (() => string);
  /** The details; `id` is the request's. */
  facts: Record<string, unknown>;
}

export type Log = (entry: LogEntry) => void;

export interface LogDeps {
  /** Takes whole lines, newline included. */
  write(lines: string): void;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Whether levels are colored, for a terminal. */
  colors?: boolean;
}

const RANK = {debug: 0, info: 1, warn: 2, error: 3, silent: 4} as const;

/**
 * Writes a log of the configured level and format: lines of text for people, or JSON objects for machines, which hold
 * the facts and not the sentence made of them. Credentials are removed from every text.
 */
export async function createLog({level, format}: Config['log'], deps: LogDeps): Promise<Log> {
  const write = format === 'json' ? await createJsonWriter(deps) : await createPrettyWriter(deps);
  return (entry) => {
    if (RANK[entry.level] >= RANK[level]) write(entry);
  };
}

/**
 * Logs the events of one server. Listens to each request only where each is a line.
 * @param lowest the level that is logged, with those above it
 * @returns a function that ends it
 */
export function logEvents(events: Events, log: Log, lowest: Config['log']['level'] = 'debug'): () => void {
  const subscribe = <Name extends LoggedEvent>(name: Name): (() => void) => {
    const heard = heardAt(RANK[lowest], name);
    if (heard === undefined) return () => {};
    const write = (event: EventMap[Name][0]) => {
      const [level, text] = LINES[name](event);
      log({level, event: name, text, facts: {...event}});
    };
    const listener = write as Parameters<typeof events.on<Name>>[1];
    events.on(heard, listener);
    return () => void events.off(heard, listener);
  };
  const ends = Object.keys(LINES).map((name) => subscribe(name as LoggedEvent));
  return () => {
    for (const end of ends) end();
  };
}

/** The event with the facts for the lines of another one, or of the same. */
function heardAt<Name extends LoggedEvent>(rank: number, name: Name): Name | undefined {
  if (name === 'request.start') return rank > RANK.debug ? undefined : name;
  // The facts of both are the same.
  return name === 'request.end' && rank > RANK.info ? ('request.trouble' as Name) : name;
}

/** Loads pino on first use: most commands have no log. */
async function createLogger({now}: LogDeps, write: (line: string) => void): Promise<Logger> {
  const {pino} = await import('pino');
  return pino(
    {
      level: 'debug',
      base: null,
      timestamp: () => `,"time":"${new Date(now()).toISOString()}"`,
      formatters: {level: (label) => ({level: label})},
    },
    {write},
  );
}

async function createJsonWriter(deps: LogDeps): Promise<Log> {
  const logger = await createLogger(deps, deps.write);
  return ({level, event, facts}) => logger[level]({event, ...redactFacts(facts)});
}

const redactFacts = (facts: LogEntry['facts']): LogEntry['facts'] =>
  Object.fromEntries(
    Object.entries(facts).map(([key, value]) => {
      if (value instanceof Error) return [key, redact(describeError(value))];
      return [key, typeof value === 'string' ? redact(value) : value];
    }),
  );

async function createPrettyWriter(deps: LogDeps): Promise<Log> {
  const {prettyFactory} = await import('pino-pretty');
  const format = prettyFactory({
    colorize: deps.colors ?? false,
    translateTime: "UTC:yyyy-mm-dd'T'HH:MM:ss.l'Z'",
    hideObject: true,
  });
  const logger = await createLogger(deps, (line) => deps.write(format(line)));
  return ({level, text, facts: {id}}) => {
    const whole = typeof text === 'string' ? text : text();
    const [first = '', ...more] = printable(redact(whole)).split('\n');
    const request =
      typeof id === 'string' && id !== '' ? ` [${printable(id.slice(0, SHORT_ID_LENGTH))}]` : '';
    logger[level]([`${first}${request}`, ...more].join('\n'));
  };
}

/** Characters of a request's id in a line for people: enough to distinguish the requests of a day. */
const SHORT_ID_LENGTH = 8;

/** Indents further lines, and escapes control characters. */
const printable = (text: string): string =>
  text
    .replace(/\r?\n/g, '\n    ')
    .replace(/[^\P{Cc}\n]/gu, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`);
