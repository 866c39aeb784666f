import {STATUS_CODES} from 'node:http';
import type {Socket} from 'node:net';
import type {Field} from './answer.ts';
import {KEEP_ALIVE} from './keep-alive.ts';
import {REQUEST_ID_LENGTH} from './request-id.ts';

/** An answer as the bytes that node's HTTP server would write. */
export interface RenderedAnswer {
  /**
   * @param id its `X-Request-Id`
   * @param first the beginning of a body that lies elsewhere
   */
  writeTo(socket: Socket, id: string, first?: Uint8Array): void;
}

interface Rendered {
  status: number;
  fields: readonly Field[];
  body: Buffer | undefined;
}

/** Rendered when it is written for the first time: many answers are only given by node's HTTP server. */
export const renderedAnswer = (parts: Rendered): RenderedAnswer => new Template(parts);

/** A longer body is written beside its head, in the same system call, rather than copied behind it. */
const MAX_COPIED_BYTES = 64 * 1024;

const isCopied = (body: Buffer | undefined): boolean => body !== undefined && body.length <= MAX_COPIED_BYTES;

/** What a rendered answer takes beside its parts, in bytes. */
export const renderedBytes = (body: Buffer | undefined): number => (body && isCopied(body) ? body.length : 0);

class Template implements RenderedAnswer {
  readonly #parts: Rendered;
  readonly #beside: Buffer | undefined;
  #bytes: Buffer | undefined;
  #idAt = 0;
  #dateAt = 0;
  #second = 0;

  constructor(parts: Rendered) {
    this.#parts = parts;
    this.#beside = isCopied(parts.body) ? undefined : parts.body;
  }

  writeTo(socket: Socket, id: string, first?: Uint8Array): void {
    const bytes = this.#bytes ?? this.#render();
    bytes.write(id, this.#idAt, REQUEST_ID_LENGTH, 'latin1');
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      bytes.write(httpDate(second), this.#dateAt, DATE_LENGTH, 'latin1');
    }
    const beside = this.#beside ?? first;
    if (beside) writeBoth(socket, bytes, beside);
    else socket.write(bytes);
    // What the system has not taken yet must not change: the next one gets bytes of its own.
    this.#bytes = socket.writableLength === 0 ? bytes : undefined;
  }

  #render(): Buffer {
    const {status, fields, body} = this.#parts;
    const start = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nX-Request-Id: `;
    const middle = `\r\n${fields.flatMap(linesOf).join('')}Date: `;
    const end = `\r\nConnection: keep-alive\r\nKeep-Alive: ${KEEP_ALIVE}\r\n\r\n`;
    this.#idAt = start.length;
    this.#dateAt = start.length + REQUEST_ID_LENGTH + middle.length;
    this.#second = 0;
    const head = `${start}${' '.repeat(REQUEST_ID_LENGTH)}${middle}${' '.repeat(DATE_LENGTH)}${end}`;
    const copied = body && isCopied(body) ? [body] : [];
    return Buffer.concat([Buffer.from(head, 'latin1'), ...copied]);
  }
}

function writeBoth(socket: Socket, head: Buffer, body: Uint8Array): void {
  socket.cork();
  socket.write(head);
  socket.write(body);
  socket.uncork();
}

const linesOf = ([name, value]: Field): string[] => [value].flat().map((one) => `${name}: ${one}\r\n`);

const DATE_LENGTH = 'Thu, 01 Jan 1970 00:00:00 GMT'.length;
let last = {second: 0, text: ''};

/** As `Date` has it (RFC 9110, section 5.6.7). @param second since the epoch */
function httpDate(second: number): string {
  if (last.second !== second) last = {second, text: new Date(second * 1000).toUTCString()};
  return last.text;
}
