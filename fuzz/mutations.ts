/** Numbers from 0 (inclusive) to 1 (exclusive), determined by a seed (mulberry32). */
export function createRandom(seed: number) {
  let state = seed;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    below,
    chance: (probability: number): boolean => next() < probability,
    pick: <T>(list: readonly [T, ...T[]]): T => list[below(list.length)] ?? list[0],
  };
}

export type Random = ReturnType<typeof createRandom>;

const HEX = 'b'.repeat(64);
const FRAGMENTS = [
  '..',
  '/',
  '//',
  '/../',
  '%2e%2e',
  '%2F',
  '%252F',
  '%',
  '%zz',
  '%00',
  '%ff',
  '%c0%af',
  '%e2%84%aa',
  '?',
  '#',
  '&',
  '=',
  '&ns=ghcr.io',
  '?ns=docker.io',
  '&digest=',
  '&tag=',
  '&mount=',
  '&from=',
  '&digest-algorithm=sha512',
  '&n=0',
  '&n=-1',
  '&last=%00',
  ';',
  '"',
  "'",
  '\\',
  '<',
  '*',
  '@',
  ':',
  ',',
  ' ',
  '\t',
  '\u00ff',
  '\u00a0',
  '\0',
  '__proto__',
  'constructor',
  'ghcr.io/',
  'localhost:5000/',
  'manifests/',
  'blobs/',
  'uploads/',
  'tags/list',
  'http://',
  `sha256:${HEX}`,
  `sha512:${HEX}${HEX}`,
  'sha256:',
  '-',
  '_',
  '.',
  'A',
  '0',
  '9'.repeat(30),
  'a'.repeat(300),
  'a/'.repeat(200),
  'x'.repeat(9000),
  'bytes=',
  '0-0,',
  'W/',
  'no-cache',
] as const;

/** A text with some characters removed, doubled or replaced, or with something inserted that parsers trip over. */
export function mutate(text: string, random: Random): string {
  const at = random.below(text.length + 1);
  const length = 1 + random.below(random.chance(0.5) ? 2 : 12);
  switch (random.below(5)) {
    case 0:
      return text.slice(0, at) + text.slice(at + length);
    case 1:
      return text.slice(0, at) + text.slice(at, at + length) + text.slice(at);
    case 2:
      return text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + 1);
    default:
      return text.slice(0, at) + random.pick(FRAGMENTS) + text.slice(at + (random.chance(0.5) ? 0 : length));
  }
}

export interface Seeds {
  paths: readonly [string, ...string[]];
  /** Bodies of requests, each character a byte. */
  bodies: readonly [string, ...string[]];
  digest: string;
}

const METHODS = [
  'GET',
  'GET',
  'GET',
  'GET',
  'GET',
  'GET',
  'HEAD',
  'HEAD',
  'HEAD',
  'PUT',
  'POST',
  'PATCH',
  'DELETE',
  'OPTIONS',
  'TRACE',
  'CONNECT',
] as const;

const headersOf = ({digest}: Seeds) =>
  [
    'Range: bytes=0-10',
    'Range: bytes=-5000',
    'Range: bytes=9000-',
    'Range: bytes=500-0',
    'Range: bytes=-0',
    'Range: bytes=1-2,4-5',
    'If-Range: "x"',
    `If-Range: "${digest}"`,
    `If-None-Match: "${digest}", W/"x"`,
    'If-None-Match: *',
    'Cache-Control: no-cache',
    'Cache-Control: max-age=0',
    'Pragma: no-cache',
    'Via: 1.1 somebody',
    'Accept: application/json',
    'Authorization: Basic eDp5',
    'Accept-Encoding: gzip',
    'Connection: keep-alive',
    'Connection: Upgrade, HTTP2-Settings',
    'Upgrade: h2c',
    'Upgrade: websocket',
    'X-Forwarded-Host: ghcr.io',
    'Cookie: a=b',
    'Content-Type: application/vnd.oci.image.manifest.v1+json',
    'Content-Type: application/vnd.oci.image.index.v1+json; charset=utf-8',
    'Content-Range: 0-1999',
    'Content-Range: bytes 1000-1999/2000',
    'Content-Encoding: gzip',
    'Expect: 100-continue',
  ] as const;

const withoutBreaks = (text: string): string => text.replaceAll(/[\r\n]/g, '');

/** A request with valid HTTP framing: whatever else is wrong with it, it gets exactly one answer. */
export function mutatedRequest(seeds: Seeds, random: Random): string {
  let method: string = random.pick(METHODS);
  let target: string = method === 'CONNECT' && random.chance(0.7) ? 'ghcr.io:443' : random.pick(seeds.paths);
  for (let count = random.below(3); count > 0; count--) target = mutate(target, random);
  if (random.chance(0.03)) method = mutate(method, random);
  let host = 'Host: 127.0.0.1';
  if (random.chance(0.05)) host = `Host: ${mutate('ghcr.io:443', random)}`;
  if (random.chance(0.01)) host = '';
  const headers = Array.from({length: random.below(4)}, () => {
    const header = random.pick(headersOf(seeds));
    const value = header.indexOf(':') + 2;
    return random.chance(0.5) ? header : header.slice(0, value) + mutate(header.slice(value), random);
  });
  const {framing, body} = bodyOf(method, seeds, random);
  const lines = [`${method} ${target} HTTP/1.1`, host, ...headers, framing].map(withoutBreaks);
  return `${lines.filter((line) => line !== '').join('\r\n')}\r\n\r\n${body}`;
}

const BODILESS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'CONNECT']);

/** A body, mutated or not, with the header that frames it; most requests that read have none. */
function bodyOf(method: string, {bodies}: Seeds, random: Random): {framing: string; body: string} {
  if (random.chance(BODILESS.has(method) ? 0.98 : 0.2)) return {framing: '', body: ''};
  let text: string = random.pick(bodies);
  for (let count = random.below(3); count > 0; count--) text = mutate(text, random);
  // Sent as one byte per character.
  const bytes = Buffer.from(text, 'latin1');
  if (random.chance(0.7)) return {framing: `Content-Length: ${bytes.length}`, body: bytes.toString('latin1')};
  const chunk = bytes.length === 0 ? '' : `${bytes.length.toString(16)}\r\n${bytes.toString('latin1')}\r\n`;
  return {framing: 'Transfer-Encoding: chunked', body: `${chunk}0\r\n\r\n`};
}

const FRAMING = [
  '\r',
  '\n',
  '\r\n',
  '\r\n\r\n',
  '\0',
  'Content-Length: 5\r\n',
  'Content-Length: -1\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Expect: 100-continue\r\n',
  'Expect: x\r\n',
  'Connection: close\r\n',
  'HTTP/1.0',
  'HTTP/9.9',
  'CONNECT a:1 HTTP/1.1\r\n',
  'GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n',
  '5\r\nhello\r\n0\r\n\r\n',
] as const;

/** Bytes that need not be a request at all. */
export function mutatedBytes(seeds: Seeds, random: Random): string {
  let text = mutatedRequest(seeds, random);
  for (let count = 1 + random.below(3); count > 0; count--) {
    const at = random.below(text.length + 1);
    text = random.chance(0.5)
      ? mutate(text, random)
      : text.slice(0, at) + random.pick(FRAMING) + text.slice(at + random.below(3));
  }
  return text;
}

/** Contained in every HTML page that takes the place of the upstream's answer, and in none of its content. */
export const PAGE_MARK = 'Please log in';
const PAGE_STATUSES = [200, 200, 200, 201, 203, 206] as const;
const HTML_TYPES = [
  'text/html',
  'text/html; charset=utf-8',
  'Text/HTML;charset=UTF-8',
  'application/xhtml+xml',
] as const;

/** A login or maintenance page, as a proxy in front of a registry sends it: with any 2xx and any length. */
export function htmlPage(random: Random): {status: number; headers: Record<string, string>; body: Buffer} {
  const text = `<!doctype html><title>${PAGE_MARK}</title>${'<p>'.repeat(random.below(2000))}`;
  return {
    status: random.pick(PAGE_STATUSES),
    headers: {'Content-Type': random.pick(HTML_TYPES)},
    body: Buffer.from(text),
  };
}

/** Up to three requests in a row, the last possibly cut off: what a client sends before it goes away. */
export function brokenOff(seeds: Seeds, random: Random): string {
  const whole = Array.from({length: 1 + random.below(3)}, () => mutatedRequest(seeds, random)).join('');
  return random.chance(0.5) ? whole : whole.slice(0, random.below(whole.length + 1));
}
