import {createHash} from 'node:crypto';
import {realpath} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join, resolve} from 'node:path';

/** The address of a Unix socket holds 108 bytes on Linux and 104 on macOS, including a final zero. */
const MAX_BYTES = 100;

/**
 * Where the server of a data folder listens for commands: `backref.sock` in that folder. Where that path is too long for
 * a socket's address, it is a name made of the path's hash in the system's folder for temporary files, which must then
 * be the same for the server and the command.
 */
export async function socketPath(folder: string): Promise<string> {
  // The same socket, whatever name the folder is reached by.
  const path = join(await realpath(folder).catch(() => resolve(folder)), 'backref.sock');
  if (Buffer.byteLength(path) <= MAX_BYTES) return path;
  const hash = createHash('sha256').update(path).digest('hex').slice(0, 16);
  return join(tmpdir(), `backref-${hash}.sock`);
}

/** An answer to a command consists of lines of JSON: progress first, then a result or an error. */
export type Message = {progress: unknown} | {result: unknown} | {error: Failure};

export interface Failure {
  message: string;
  /** The server is being stopped, and the command was not completed. */
  stopped?: boolean;
}

export const NDJSON = 'application/x-ndjson';

export const lineOf = (message: Message): string => `${JSON.stringify(message)}\n`;

/** The messages of a text stream, one for each line. */
export async function* messagesOf(texts: AsyncIterable<string>): AsyncGenerator<Message> {
  let rest = '';
  for await (const text of texts) {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line);
  }
}
