import {once} from 'node:events';
import {connect, type Socket} from 'node:net';
import type {Lifetime} from '../support/shared.ts';

/** How a request reaches its answer. */
export const WAYS = ['ordinary', 'table', 'front'] as const;
export type Way = (typeof WAYS)[number];

/** A connection whose answers are compared byte for byte. */
export interface BareConnection {
  readonly socket: Socket;
  /** Sends a text, and reads one whole answer to it. @throws Error when the connection ends before that */
  ask(text: string): Promise<string>;
}

/** Connects, and sends nothing yet. */
export async function openBare(t: Lifetime, port: number): Promise<BareConnection> {
  const socket = connect(port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  await once(socket, 'connect');
  socket.on('error', () => {});
  const chunks: AsyncIterator<Buffer> = socket[Symbol.asyncIterator]();
  let held = '';
  return {
    socket,
    async ask(text) {
      socket.write(text);
      const length = () => wholeLength(held, text.startsWith('HEAD '));
      while (length() === undefined) {
        const {value, done} = await chunks.next();
        if (done) throw new Error(`the connection ended after: ${held}`);
        held += value.toString('latin1');
      }
      const answer = held.slice(0, length());
      held = held.slice(answer.length);
      return answer;
    },
  };
}

/** The length of the first answer; undefined while it is not whole. */
function wholeLength(text: string, isHead: boolean): number | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end === -1) return undefined;
  const head = text.slice(0, end);
  const isBodiless = isHead || /^HTTP\/1\.1 (?:204|304) /.test(head);
  const body = isBodiless ? 0 : Number(/^content-length: (\d+)$/im.exec(head)?.[1] ?? 0);
  return text.length < end + 4 + body ? undefined : end + 4 + body;
}

/** A field that changes nothing, but that no fast way knows. */
const UNKNOWN = 'X-Nothing: 1\r\n';

/**
 * Connects so that the next request takes this way: below node's HTTP server, or by that server, which asks the same
 * table before Koa. Node's server keeps a connection once it has one.
 * @param text of a whole request; its first line and `Host` come first
 */
export async function openWay(
  t: Lifetime,
  port: number,
  way: Way,
): Promise<{ask(text: string): Promise<string>}> {
  const connection = await openBare(t, port);
  if (way !== 'front') await connection.ask(`GET /healthz HTTP/1.1\r\nHost: a\r\n${UNKNOWN}\r\n`);
  if (way !== 'ordinary') return connection;
  return {ask: (text) => connection.ask(text.replace(/\r\n\r\n$/, `\r\n${UNKNOWN}\r\n`))};
}

/** An answer without what each has of its own: its id and its date. */
export const shared = (answer: string): string =>
  answer
    .replace(/^X-Request-Id: [0-9a-f]{32}\r$/m, 'X-Request-Id: …\r')
    .replace(/^Date: .{29}\r$/m, 'Date: …\r');
