import {type IncomingMessage, request} from 'node:http';
import {errorCode} from '../error-code.ts';
import {isOccupied} from '../unix-socket.ts';
import type {Commands, CommandTask} from './commands.ts';
import {type Failure, messagesOf, socketPath} from './protocol.ts';

/** How long a running server may take to begin its answer. */
const ANSWER_TIMEOUT_MS = 10_000;

/** The server stopped before the command was done. It can be run again, on whatever process then uses the folder. */
export class ServerStopped extends Error {
  override readonly name = 'ServerStopped';
}

/**
 * The commands of the server that uses a data folder, over its local socket. A command that fails throws an Error with the
 * server's message.
 * @returns undefined when no server answers there
 * @throws Error when this user is not allowed to use the socket
 */
export async function connectCommands(folder: string): Promise<Commands | undefined> {
  const path = await socketPath(folder);
  if (!(await isReachable(path))) return undefined;
  return {
    reindex: (task) => run(path, '/reindex', {}, task),
    collect: ({grace, ...task}) => run(path, '/collect', {grace}, task),
    index: ({repository, budget, ...task}) => run(path, '/index', {repository, budget}, task),
    verify: ({dryRun, ...task}) => run(path, '/verify', {dryRun}, task),
    ready: ({images, platforms, ...task}) => run(path, '/ready', {images, platforms}, task),
    warm: ({images, platforms, referrers, ...task}) =>
      run(path, '/warm', {images, platforms, referrers}, task),
    usage: ({by, top, ...task}) => run(path, '/usage', {by, top}, task),
    remove: ({images, dryRun, ...task}) => run(path, '/remove', {images, dryRun}, task),
    pin: ({images}) => run(path, '/pin', {images}, SHORT),
    unpin: ({images}) => run(path, '/unpin', {images}, SHORT),
    pins: (task) => run(path, '/pins', {}, task),
    createRobot: ({name, may, on, expiresIn}) =>
      run(path, '/create-robot', {name, may, on, expiresIn}, SHORT),
    robots: () => run(path, '/robots', {}, SHORT),
    revokeRobot: ({name}) => run(path, '/revoke-robot', {name}, SHORT),
    who: ({digest}) => run(path, '/who', {digest}, SHORT),
    backup: ({folder, ...task}) => run(path, '/backup', {folder}, task),
    restore: ({folder, ...task}) => run(path, '/restore', {folder}, task),
    ingest: ({repository: {registry, name}, bytes, ...request}) =>
      run(path, '/ingest', {registry, repository: name, bytes: bytes.toString('base64'), ...request}, SHORT),
  };
}

/** For a command that is too short to report progress or to be interrupted. */
const SHORT: CommandTask<unknown> = {signal: new AbortController().signal, progress: () => {}};

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
  options: Record<string, unknown>,
  {signal, progress}: CommandTask<Progress>,
): Promise<Result> {
  try {
    const response = await post(path, command, JSON.stringify(options), signal);
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

/** The errors of a connection whose server ends, before the connection is made or afterwards. */
const BROKEN = new Set<unknown>(['ECONNRESET', 'ECONNREFUSED', 'ENOENT', 'EPIPE']);

const isBroken = (error: unknown): boolean => BROKEN.has(errorCode(error));

function post(path: string, command: string, body: string, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = request({socketPath: path, path: command, method: 'POST', signal}, (response) => {
      asked.setTimeout(0);
      resolve(response);
    });
    asked.setTimeout(ANSWER_TIMEOUT_MS, () => {
      asked.destroy(new Error(`the server on ${path} does not answer within ${ANSWER_TIMEOUT_MS / 1000} s`));
    });
    asked.once('error', (error) => reject(signal.aborted ? signal.reason : error));
    asked.end(body);
  });
}
