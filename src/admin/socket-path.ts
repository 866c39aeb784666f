import {createHash} from 'node:crypto';
import {realpath} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join, resolve} from 'node:path';

/** The address of a Unix socket holds 108 bytes on Linux, 104 on macOS, the last one a zero. */
const MAX_BYTES = 100;

/**
 * Where the server of a data folder listens for commands: `backref.sock` in it; where that is too long for a socket's
 * address, a name made of its hash in the system's folder for temporary files, which must then be the same one for
 * server and command.
 */
export async function socketPath(folder: string): Promise<string> {
  // By whatever name the folder is reached, it is one server's.
  const path = join(await realpath(folder).catch(() => resolve(folder)), 'backref.sock');
  if (Buffer.byteLength(path) <= MAX_BYTES) return path;
  const hash = createHash('sha256').update(path).digest('hex').slice(0, 16);
  return join(tmpdir(), `backref-${hash}.sock`);
}
