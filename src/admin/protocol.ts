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

/** What a command's answer is made of: lines of JSON, progress first, then a result or an error. */
export type Message = {progress: unknown} | {result: unknown} | {error: Failure};

export interface Failure {
  message: string;
  /** The server is being stopped: what was wished was not done whole. */
  stopped?: boolean;
}

export const NDJSON = 'application/x-ndjson';

export const lineOf = (message: Message): string => `${JSON.stringify(message)}\n`;

/** The messages of a stream of text, as its lines come. */
export async function* messagesOf(texts: AsyncIterable<string>): AsyncGenerator<Message> {
  let rest = '';
  for await (const text of texts) {
    const lines = `${rest}${text}`.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line);
  }
}
