import {hash, randomBytes} from 'node:crypto';
import type {IncomingMessage} from 'node:http';

/**
 * A request that means no more than these fields say: equal ones get equal answers as long as nothing changes. Any other
 * request, with a body, a range, a field of a proxy or one that is not known here, is none of them.
 */
export interface KnownRequest {
  readonly method: 'GET' | 'HEAD';
  /** In origin-form, with the query. */
  readonly target: string;
  readonly authorization: string | undefined;
  readonly userAgent: string | undefined;
  /** Equal for equal requests that came in at the same listener. */
  readonly key: string;
}

/** Reads the requests of one connection. */
export interface KnownRequests {
  /**
   * Reads a whole request from bytes that are nothing else. What it takes is less than what node takes, and means the same
   * to both: visible ASCII and spaces alone, one field a line, no line that continues another.
   * @returns undefined for anything else, which node has to read
   */
  read(bytes: Buffer): KnownRequest | undefined;
}

/** Says which requests are known. */
export interface RequestReader {
  /** @param listener the number of the listener that the connection came in at */
  connection(listener: number): KnownRequests;
  /** A request that node has read. @returns undefined for one that is not known */
  known(message: IncomingMessage, listener: number): KnownRequest | undefined;
}

/** What the keys of one server's requests are made with, in all of its threads. */
export const createKeySecret = (): string => randomBytes(32).toString('base64');

/**
 * @param maxFields how many header fields are allowed
 * @param secret as `createKeySecret` makes it
 */
export function createRequestReader(maxFields: () => number, secret = createKeySecret()): RequestReader {
  // No credential is kept here: what names it is of no use outside this process.
  const nameOf: NameCredential = (credential) => hash('sha256', `${secret}${credential}`, 'base64');
  return {
    connection: (listener) => new ConnectionRequests({listener, maxFields, nameOf}),
    known({method, url = '', httpVersion, rawHeaders}, listener) {
      if ((method !== 'GET' && method !== 'HEAD') || httpVersion !== '1.1') return undefined;
      if (!url.startsWith('/') || rawHeaders.length / 2 > maxFields()) return undefined;
      const fields = new Fields();
      for (let at = 0; at < rawHeaders.length; at += 2)
        if (!fields.add(rawHeaders[at] ?? '', rawHeaders[at + 1] ?? '')) return undefined;
      const known = fields.known(listener, nameOf);
      return known && requestOf(method, url, known);
    },
  };
}

type NameCredential = (credential: string) => string;

/** What a header field does: it is part of the key, it is only logged, or it changes nothing about answers that are hits. */
const FIELDS: ReadonlyMap<string, 'host' | 'match' | 'credential' | 'agent' | 'connection' | 'nothing'> =
  new Map([
    ['host', 'host'],
    ['if-none-match', 'match'],
    ['authorization', 'credential'],
    ['user-agent', 'agent'],
    ['connection', 'connection'],
    // dist-spec, Pulling Manifests: the stored bytes are sent, whatever the client accepts.
    ['accept', 'nothing'],
    ['accept-encoding', 'nothing'],
    ['accept-language', 'nothing'],
    // Of Podman and Skopeo.
    ['docker-distribution-api-version', 'nothing'],
  ] as const);

/** The fields of a known request, and their part of its key. */
type KnownFields = Pick<KnownRequest, 'authorization' | 'userAgent' | 'key'>;

/** No field has a line feed, so none can be taken for another one. */
const requestOf = (method: KnownRequest['method'], target: string, fields: KnownFields): KnownRequest => ({
  method,
  target,
  authorization: fields.authorization,
  userAgent: fields.userAgent,
  key: `${method} ${target}\n${fields.key}`,
});

/** The fields of one request, as far as they are known. */
class Fields {
  host: string | undefined;
  match: string | undefined;
  credential: string | undefined;
  agent: string | undefined;
  #hasConnection = false;

  /** @param name in whatever case. @returns false for a field that needs the ordinary server */
  add(name: string, value: string): boolean {
    const field = FIELDS.get(name) ?? FIELDS.get(name.toLowerCase());
    switch (field) {
      case 'host':
      case 'match':
      case 'credential':
      case 'agent':
        // Node joins, or drops, what is given twice. A credential that is empty is refused.
        if (this[field] !== undefined || (field === 'credential' && value === '')) return false;
        this[field] = value;
        return true;
      case 'connection':
        if (this.#hasConnection || value.toLowerCase() !== 'keep-alive') return false;
        this.#hasConnection = true;
        return true;
      case 'nothing':
        return true;
      case undefined:
        return false;
    }
  }

  /** @returns undefined without a host, which HTTP/1.1 requires (RFC 9112, section 3.2) */
  known(listener: number, nameOf: NameCredential): KnownFields | undefined {
    const {host, match = '', credential, agent} = this;
    if (host === undefined) return undefined;
    const name = credential === undefined ? '' : nameOf(credential);
    return {authorization: credential, userAgent: agent, key: `${host}\n${match}\n${name}\n${listener}`};
  }
}

const END = '\r\n\r\n';
const VERSION = ' HTTP/1.1';
const TARGET = /^[!-~]+$/;
const VALUE = /^[ -~]*$/;

interface ConnectionParts {
  listener: number;
  maxFields: () => number;
  nameOf: NameCredential;
}

/** A client sends most requests of a connection with the same fields: they are read once. */
class ConnectionRequests implements KnownRequests {
  readonly #parts: ConnectionParts;
  /** The fields of the request before, from the end of its first line on. */
  #text = '';
  /** How many fields were allowed then. */
  #max = 0;
  #fields: KnownFields | undefined;
  /** The whole request before, and what it was read as: some clients ask for the same again and again. */
  #bytes: Buffer = Buffer.alloc(0);
  #known: KnownRequest | undefined;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
  }

  read(bytes: Buffer): KnownRequest | undefined {
    const max = this.#parts.maxFields();
    if (max === this.#max && bytes.equals(this.#bytes)) return this.#known;
    this.#known = this.#read(bytes.toString('latin1'), max);
    this.#bytes = Buffer.allocUnsafeSlow(bytes.length);
    bytes.copy(this.#bytes);
    return this.#known;
  }

  #read(head: string, max: number): KnownRequest | undefined {
    const method = head.startsWith('GET /') ? 'GET' : head.startsWith('HEAD /') ? 'HEAD' : undefined;
    const lineEnd = head.indexOf('\r\n');
    if (method === undefined || lineEnd === -1) return undefined;
    const target = head.slice(method.length + 1, lineEnd - VERSION.length);
    if (!head.startsWith(VERSION, lineEnd - VERSION.length) || !TARGET.test(target)) return undefined;
    const text = head.slice(lineEnd);
    if (text !== this.#text || max !== this.#max) {
      this.#text = text;
      this.#max = max;
      this.#fields = this.#parse(text, max);
    }
    return this.#fields && requestOf(method, target, this.#fields);
  }

  #parse(text: string, max: number): KnownFields | undefined {
    if (text.indexOf(END) !== text.length - END.length) return undefined;
    const {listener, nameOf} = this.#parts;
    const fields = new Fields();
    let count = 0;
    for (let at = 2; at < text.length - 2; count += 1) {
      const end = text.indexOf('\r\n', at);
      const colon = text.indexOf(':', at);
      if (count === max || colon === -1 || colon > end) return undefined;
      const value = text.slice(colon + 1, end);
      if (!VALUE.test(value) || !fields.add(text.slice(at, colon), value.trim())) return undefined;
      at = end + 2;
    }
    return fields.known(listener, nameOf);
  }
}
