import {lstat, rm} from 'node:fs/promises';
import {connect} from 'node:net';
import {errorCode} from './error-code.ts';

/** The most bytes in a Unix socket's path: its address holds 108 on Linux and 104 on macOS, including a final zero. */
export const MAX_SOCKET_PATH_BYTES = 103;

/** No file, a file that is not a socket, one that a process left behind when it died, or one that is being closed. */
const NOT_LISTENING = new Set(['ENOENT', 'ENOTSOCK', 'ECONNREFUSED', 'ECONNRESET']);

/**
 * Whether a process listens on a Unix socket.
 * @throws the system's error otherwise, such as EACCES for another user's socket
 */
export function isOccupied(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (NOT_LISTENING.has(error.code ?? '')) resolve(false);
      else reject(error);
    });
  });
}

/**
 * Removes a socket that a process left behind when it died, so that another one can listen on its path.
 * @throws EADDRINUSE where a process listens, EEXIST where the file is not a socket; the system's errors
 */
export async function removeStaleSocket(path: string): Promise<void> {
  const file = await lstat(path).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (!file) return;
  if (!file.isSocket()) throw systemError('EEXIST', path, 'is not a socket');
  if (await isOccupied(path)) throw systemError('EADDRINUSE', path, 'is in use');
  await rm(path, {force: true});
}

const systemError = (code: string, address: string, problem: string): Error =>
  Object.assign(new Error(`the socket ${address} ${problem}`), {code, address});
