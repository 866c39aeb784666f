import {connect} from 'node:net';

/** No file, a file that is no socket, one that a process left behind when it died, or one that is just being closed. */
const NOBODY = new Set(['ENOENT', 'ENOTSOCK', 'ECONNREFUSED', 'ECONNRESET']);

/**
 * Whether a process listens on a Unix socket.
 * @throws what else the system says: EACCES for one of another user.
 */
export function isOccupied(path: string): Promise<boolean> {
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
