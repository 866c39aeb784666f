import {isIP} from 'node:net';

const LABEL = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?';
const HOST = new RegExp(`^(?:\\[[0-9a-f:.]+\\]|${LABEL}(?:\\.${LABEL})*)(?::\\d{1,5})?$`);

/**
 * Parses a DNS name, an IPv4 address or an IPv6 address in brackets, in lower case, with or without a port.
 * @returns the same text, or undefined for anything else.
 */
export function parseHost(value: unknown): string | undefined {
  if (typeof value !== 'string' || value.length > 255 || !HOST.test(value)) return undefined;
  // A number alone is a port or a mistake.
  if (/^\d+(?::|$)/.test(value)) return undefined;
  return URL.canParse(`http://${value}`) ? value : undefined;
}

/**
 * Parses an IP address or a network in CIDR notation.
 * @returns the same text, or undefined for anything else.
 */
export function parseNetwork(value: unknown): string | undefined {
  const [, address = '', prefix = '0'] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(String(value)) ?? [];
  const bits = {0: -1, 4: 32, 6: 128}[isIP(address)] ?? -1;
  return Number(prefix) <= bits && !address.includes('%') ? String(value) : undefined;
}

const ALLOWED = 'write https://host or https://host:port';

/**
 * Parses the URL of an upstream registry: a scheme and a host.
 * @returns the URL without a trailing slash, or what is wrong with it.
 */
export function parseUpstreamUrl(value: unknown): {url: string} | {problem: string} {
  if (value === undefined) return {problem: `is missing: ${ALLOWED}`};
  if (typeof value !== 'string' || !URL.canParse(value)) return {problem: `must be a URL: ${ALLOWED}`};
  const url = new URL(value);
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    return {problem: `must begin with https://, or with http:// and insecure: true; ${ALLOWED}`};
  if (url.username !== '' || url.password !== '')
    return {problem: 'must not contain a user name or password: write them in upstream.credentials'};
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    return {problem: `must end after the host, without path or query: ${ALLOWED}`};
  return {url: url.origin};
}
