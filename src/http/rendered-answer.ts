import {STATUS_CODES} from 'node:http';
import type {Socket} from 'node:net';
import type {Field} from './answer.ts';
import {KEEP_ALIVE} from './keep-alive.ts';

/** An answer as the bytes that node's HTTP server would write. */
export interface RenderedAnswer {
  /** @param id its `X-Request-Id`, of 36 characters */
  writeTo(socket: Socket, id: string): void;
}

interface Rendered {
  status: number;
  fields: readonly Field[];
  body: Buffer | undefined;
}

/** Rendered when it is written for the first time: many answers are only given by node's HTTP server. */
export const renderedAnswer = (parts: Rendered): RenderedAnswer => new Template(parts);

const ID_LENGTH = 36;

class Template implements RenderedAnswer {
  readonly #parts: Rendered;
  #bytes: Buffer | undefined;
  #idAt = 0;
  #dateAt = 0;
  #second = 0;

  constructor(parts: Rendered) {
    this.#parts = parts;
  }

  writeTo(socket: Socket, id: string): void {
    const bytes = this.#bytes ?? this.#render();
    bytes.write(id, this.#idAt, ID_LENGTH, 'latin1');
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      bytes.write(httpDate(second), this.#dateAt, DATE_LENGTH, 'latin1');
    }
    socket.write(bytes);
    // What the system has not taken yet must not change: the next one gets bytes of its own.
    this.#bytes = socket.writableLength === 0 ? bytes : undefined;
  }

  #render(): Buffer {
    const {status, fields, body} = this.#parts;
    const start = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nX-Request-Id: `;
    const middle = `\r\n${fields.flatMap(linesOf).join('')}Date: `;
    const end = `\r\nConnection: keep-alive\r\nKeep-Alive: ${KEEP_ALIVE}\r\n\r\n`;
    this.#idAt = start.length;
    this.#dateAt = start.length + ID_LENGTH + middle.length;
    this.#second = 0;
    const head = `${start}${' '.repeat(ID_LENGTH)}${middle}${' '.repeat(DATE_LENGTH)}${end}`;
    return Buffer.concat([Buffer.from(head, 'latin1'), ...(body ? [body] : [])]);
  }
}

const linesOf = ([name, value]: Field): string[] => [value].flat().map((one) => `${name}: ${one}\r\n`);

const DATE_LENGTH = 'Thu, 01 Jan 1970 00:00:00 GMT'.length;
let last = {second: 0, text: ''};

/** As `Date` has it (RFC 9110, section 5.6.7). @param second since the epoch */
function httpDate(second: number): string {
  if (last.second !== second) last = {second, text: new Date(second * 1000).toUTCString()};
  return last.text;
}
