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
  /** Equal for requests that callers with equal rights get equal answers to. */
  readonly key: string;
}

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
  request(method: 'GET' | 'HEAD', target: string): KnownRequest | undefined {
    const {host, match = '', credential, agent} = this;
    if (host === undefined) return undefined;
    return {
      method,
      target,
      authorization: credential,
      userAgent: agent,
      key: `${method} ${target}\n${host}\n${match}`,
    };
  }
}

/**
 * A request that node has read.
 * @param maxFields how many header fields are allowed
 * @returns undefined for one that is not known
 */
export function knownRequestOf(
  {method, url = '', httpVersion, rawHeaders}: IncomingMessage,
  maxFields: number,
): KnownRequest | undefined {
  if ((method !== 'GET' && method !== 'HEAD') || httpVersion !== '1.1') return undefined;
  if (!url.startsWith('/') || rawHeaders.length / 2 > maxFields) return undefined;
  const fields = new Fields();
  for (let at = 0; at < rawHeaders.length; at += 2)
    if (!fields.add(rawHeaders[at] ?? '', rawHeaders[at + 1] ?? '')) return undefined;
  return fields.request(method, url);
}

const END = '\r\n\r\n';
const VERSION = ' HTTP/1.1';

/**
 * Reads a whole request from bytes that are nothing else. What it takes is less than what node takes, and means the same
 * to both: visible ASCII and spaces alone, one field a line, no line that continues another.
 * @param head as Latin-1
 * @param maxFields how many header fields are allowed
 * @returns undefined for anything else, which node has to read
 */
export function readKnownRequest(head: string, maxFields: number): KnownRequest | undefined {
  const method = head.startsWith('GET /') ? 'GET' : head.startsWith('HEAD /') ? 'HEAD' : undefined;
  if (method === undefined || head.indexOf(END) !== head.length - END.length) return undefined;
  const lineEnd = head.indexOf('\r\n');
  const target = head.slice(method.length + 1, lineEnd - VERSION.length);
  if (!head.startsWith(VERSION, lineEnd - VERSION.length) || !TARGET.test(target)) return undefined;
  const fields = new Fields();
  let count = 0;
  for (let at = lineEnd + 2; at < head.length - 2; count += 1) {
    const end = head.indexOf('\r\n', at);
    const colon = head.indexOf(':', at);
    if (count === maxFields || colon === -1 || colon > end) return undefined;
    const value = head.slice(colon + 1, end);
    if (!VALUE.test(value) || !fields.add(head.slice(at, colon), value.trim())) return undefined;
    at = end + 2;
  }
  return fields.request(method, target);
}

const TARGET = /^[!-~]+$/;
const VALUE = /^[ -~]*$/;
