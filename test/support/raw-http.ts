import {once} from 'node:events';
import {connect, type Socket} from 'node:net';
import type {ExecutionContext} from 'ava';

export interface RawAnswer {
  status: number;
  /** By lower-case name; of several the last. */
  headers: Record<string, string>;
  body: Buffer;
  /** False when the connection ended before the end of the body. */
  isWhole: boolean;
}

type RawHead = Pick<RawAnswer, 'status' | 'headers'>;
type RawBody = Pick<RawAnswer, 'body' | 'isWhole'>;

/** A connection on which a test decides about every byte. */
export interface RawConnection {
  readonly socket: Socket;
  /** Writes without waiting for anything. */
  send(text: string | Uint8Array): void;
  /**
   * The next whole answer, interim ones left out; undefined when the connection ended without one.
   * @param method of the request: an answer to HEAD has no body (RFC 9112, section 6.3)
   */
  answer(method?: string): Promise<RawAnswer | undefined>;
}

/** Statuses whose answers have no body (RFC 9112, section 6.3). */
const BODILESS = new Set([204, 304]);

/** Connects to a port of this machine; whoever calls it destroys the socket. */
export async function connectRaw(port: number): Promise<RawConnection> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  return overSocket(socket);
}

/** A connection over a socket that somebody else opened, such as one of TLS. */
export function overSocket(socket: Socket): RawConnection {
  // A reset is the end of the answers, whether somebody reads at that moment or not.
  socket.on('error', () => {});
  const {line, bytes, rest} = reader(socket);

  async function head(): Promise<RawHead | undefined> {
    const first = await line();
    if (first === undefined) return undefined;
    const headers: Record<string, string> = {};
    for (let text = await line(); text; text = await line()) {
      const colon = text.indexOf(':');
      headers[text.slice(0, colon).toLowerCase()] = text.slice(colon + 1).trim();
    }
    return {status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]), headers};
  }

  async function sized(length: number): Promise<RawBody> {
    const body = await bytes(length);
    return {body, isWhole: body.length === length};
  }

  async function chunked(): Promise<RawBody> {
    const chunks: Buffer[] = [];
    for (;;) {
      const size = await line();
      const length = Number.parseInt(size ?? '0', 16);
      if (length > 0) chunks.push(await bytes(length));
      const end = await line();
      if (length === 0)
        return {body: Buffer.concat(chunks), isWhole: size !== undefined && end !== undefined};
    }
  }

  async function body(method: string, {status, headers}: RawHead): Promise<RawBody> {
    // What the parser refuses has a body whatever the method was, and ends the connection.
    if (headers['connection'] === 'close' && !headers['transfer-encoding']) {
      const all = await rest();
      return {
        body: all,
        isWhole: method === 'HEAD' || all.length === Number(headers['content-length'] ?? all.length),
      };
    }
    if (method === 'HEAD' || BODILESS.has(status)) return {body: Buffer.alloc(0), isWhole: true};
    if (headers['transfer-encoding'] === 'chunked') return chunked();
    if (headers['content-length'] === undefined) return {body: await rest(), isWhole: true};
    return sized(Number(headers['content-length']));
  }

  return {
    socket,
    send: (text) => void socket.write(text),
    async answer(method = 'GET') {
      let start = await head();
      while (start && start.status < 200) start = await head();
      return start && {...start, ...(await body(method, start))};
    },
  };
}

/** The same, ended with the test. */
export async function openRaw(t: ExecutionContext, port: number): Promise<RawConnection> {
  const connection = await connectRaw(port);
  t.teardown(() => connection.socket.destroy());
  return connection;
}

/** Sends one text on a connection of its own and gives the answer to it. */
export async function askRaw(
  t: ExecutionContext,
  port: number,
  text: string,
  method?: string,
): Promise<RawAnswer | undefined> {
  const connection = await openRaw(t, port);
  connection.send(text);
  return connection.answer(method);
}

function reader(socket: Socket) {
  const chunks: AsyncIterator<Buffer> = socket[Symbol.asyncIterator]();
  let held: Buffer = Buffer.alloc(0);

  /** What comes next; undefined at the end of the connection, however it ended. */
  async function next(): Promise<Buffer | undefined> {
    const {value, done} = await chunks.next().catch(() => ({value: undefined, done: true}));
    return done ? undefined : value;
  }

  /** False at the end of the connection. */
  async function more(): Promise<boolean> {
    const chunk = await next();
    if (chunk) held = Buffer.concat([held, chunk]);
    return chunk !== undefined;
  }

  function take(length: number): Buffer {
    const taken = held.subarray(0, length);
    held = held.subarray(length);
    return taken;
  }

  return {
    async line(): Promise<string | undefined> {
      while (!held.includes('\r\n')) if (!(await more())) return undefined;
      const text = take(held.indexOf('\r\n') + 2).toString('latin1');
      return text.slice(0, -2);
    },
    async bytes(length: number): Promise<Buffer> {
      const parts = [held];
      let missing = length - held.length;
      while (missing > 0) {
        const chunk = await next();
        if (!chunk) break;
        parts.push(chunk);
        missing -= chunk.length;
      }
      held = Buffer.concat(parts);
      return take(length);
    },
    async rest(): Promise<Buffer> {
      const parts = [held];
      for (let chunk = await next(); chunk; chunk = await next()) parts.push(chunk);
      held = Buffer.alloc(0);
      return Buffer.concat(parts);
    },
  };
}
