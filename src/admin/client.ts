import {type IncomingMessage, request} from 'node:http';
import {connect} from 'node:net';
import {errorCode} from '../error-code.ts';
import type {Commands} from './commands.ts';
import {type Failure, messagesOf, socketPath} from './protocol.ts';

/** Milliseconds in which a server that runs begins to answer. */
const PATIENCE = 10_000;

/** The server was stopped before it was done. What was wished can be wished again, of whoever works on the folder then. */
export class ServerStopped extends Error {
  override readonly name = 'ServerStopped';
}

interface Task<Progress> {
  signal: AbortSignal;
  progress(state: Progress): void;
}

/**
 * The commands of the server that works on a data folder, over its local socket. What it cannot do is an Error with
 * its words.
 * @returns undefined when no server answers there.
 * @throws Error when there is one that this user may not speak to.
 */
export async function connectCommands(folder: string): Promise<Commands | undefined> {
  const path = await socketPath(folder);
  if (!(await isReachable(path))) return undefined;
  return {
    reindex: (task) => run(path, '/reindex', {}, task),
    collect: ({grace, ...task}) => run(path, '/collect', {grace}, task),
    index: ({repository, budget, ...task}) => run(path, '/index', {repository, budget}, task),
    deposit: ({repository: {registry, name}, bytes, ...deposit}) =>
      run(path, '/deposit', {registry, repository: name, bytes: bytes.toString('base64'), ...deposit}, SHORT),
  };
}

/** What takes no time that would be worth a progress, or an end before its time. */
const SHORT: Task<unknown> = {signal: new AbortController().signal, progress: () => {}};

async function isReachable(path: string): Promise<boolean> {
  try {
    return await isOccupied(path);
  } catch (error) {
    const code = errorCode(error) ?? String(error);
    throw new Error(`the socket ${path} cannot be used (${code}): run this as the user that runs the server`);
  }
}

async function run<Progress, Result>(
  path: string,
  command: string,
  wish: Record<string, unknown>,
  {signal, progress}: Task<Progress>,
): Promise<Result> {
  try {
    const response = await post(path, command, JSON.stringify(wish), signal);
    for await (const message of messagesOf(response.setEncoding('utf8'))) {
      if ('error' in message) throw failureOf(message.error);
      if ('result' in message) return message.result as Result;
      progress(message.progress as Progress);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!isBroken(error)) throw error;
  }
  throw new ServerStopped('the server ended before it was done: run the command again');
}

const failureOf = ({message, stopped}: Failure): Error =>
  stopped ? new ServerStopped(message) : new Error(message);

/** How a connection ends whose server does, before it was made or afterwards. */
const BROKEN = new Set<unknown>(['ECONNRESET', 'ECONNREFUSED', 'ENOENT', 'EPIPE']);

const isBroken = (error: unknown): boolean => BROKEN.has(errorCode(error));

function post(path: string, command: string, body: string, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = request({socketPath: path, path: command, method: 'POST', signal}, (response) => {
      asked.setTimeout(0);
      resolve(response);
    });
    asked.setTimeout(PATIENCE, () => {
      asked.destroy(new Error(`the server on ${path} does not answer within ${PATIENCE / 1000} s`));
    });
    asked.once('error', (error) => reject(signal.aborted ? signal.reason : error));
    asked.end(body);
  });
}

/** No file, a file that is no socket, one that a process left behind when it died, or one that is just being closed. */
const NOBODY = new Set(['ENOENT', 'ENOTSOCK', 'ECONNREFUSED', 'ECONNRESET']);

/**
 * Whether a process listens on a Unix socket.
 * @throws what else the system says: EACCES for one of another user.
 */
function isOccupied(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (NOBODY.has(error.code ?? '')) resolve(false);
      else reject(error);
    });
  });
}
