import type {IncomingHttpHeaders} from 'node:http';
import {canonicalAddress, type Entrance} from './entrance.ts';

/** Who sent a request, and the URL at which it reached the first trusted proxy, or this server without one. */
export interface Origin {
  /** The client's address; undefined where nobody trustworthy names it, e.g. behind a Unix socket. */
  readonly client: string | undefined;
  readonly scheme: 'http' | 'https';
  /** The host that the client asked, with the port if it named one; undefined where it is not a valid host. */
  readonly host: string | undefined;
}

/** What one proxy says of the request that it received. */
interface Hop {
  /** The proxy's own client. */
  readonly client: string | undefined;
  readonly scheme: string | undefined;
  readonly host: string | undefined;
}

type Sent = {
  /** The address of the connection's other end; undefined for a Unix socket, and for a connection that has ended. */
  readonly peer: string | undefined;
  readonly headers: IncomingHttpHeaders;
};

/**
 * Finds where a request comes from. Each proxy appends what it knows of its own client, so the list is read from its
 * right end for as long as the proxy that wrote an entry is trusted: what is left of that is the client's own text.
 *
 * `Forwarded` (RFC 7239) counts only without any `X-Forwarded-…` header. Most proxies set those and pass on a
 * `Forwarded` that they received.
 */
export function originOf({peer, headers}: Sent, {isSecure, isTrustedProxy}: Entrance): Origin {
  const own: Origin = {
    client: canonicalAddress(peer ?? ''),
    scheme: isSecure ? 'https' : 'http',
    host: parseHost(headers.host),
  };
  if (!isTrustedProxy(own.client)) return own;
  const hops = hopsOf(headers);
  let origin = own;
  for (const hop of hops.toReversed()) {
    const scheme = hop.scheme?.toLowerCase();
    const client = canonicalAddress(withoutPort(hop.client ?? ''));
    origin = {
      client: client ?? origin.client,
      scheme: scheme === 'http' || scheme === 'https' ? scheme : origin.scheme,
      host: parseHost(hop.host) ?? origin.host,
    };
    if (client === undefined || !isTrustedProxy(client)) break;
  }
  return origin;
}

/**
 * Whether only this machine can have sent a request. One that names a proxy may come from another machine, whoever wrote
 * that: a proxy beside this server reaches its loopback address for everyone.
 */
export const isLocal = (headers: IncomingHttpHeaders, {isLoopback}: Entrance): boolean =>
  isLoopback && !PROXY_HEADERS.some((name) => headers[name] !== undefined);

const X_FORWARDED = ['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host'] as const;
const PROXY_HEADERS = [...X_FORWARDED, 'forwarded', 'x-real-ip'];

/** What the proxies say, the nearest one last. */
function hopsOf(headers: IncomingHttpHeaders): readonly Hop[] {
  const [clients, schemes, hosts] = X_FORWARDED.map((name) => listOf(headers[name]));
  if (!clients || !schemes || !hosts) return [];
  const length = Math.max(clients.length, Math.min(1, schemes.length + hosts.length));
  if (length === 0) return parseForwarded(textOf(headers['forwarded'])) ?? [];
  // A proxy that replaces the scheme or the host instead of appending it leaves fewer of them than clients.
  const at = (list: readonly string[], fromRight: number) =>
    list[Math.max(0, list.length - 1 - fromRight)] || undefined;
  return Array.from({length}, (_, index) => ({
    client: clients[index],
    scheme: at(schemes, length - 1 - index),
    host: at(hosts, length - 1 - index),
  }));
}

const textOf = (field: string | string[] | undefined): string =>
  (Array.isArray(field) ? field.join(',') : field) ?? '';

function listOf(field: string | string[] | undefined): readonly string[] {
  const text = textOf(field).trim();
  return text === '' ? [] : text.split(',').map((entry) => entry.trim());
}

const TOKEN = "[\\w!#$%&'*+.^`|~-]";
/** Proxies write addresses with ports without the quotes that RFC 7239, section 4, requires. */
const PAIR = new RegExp(
  `\\s*(?:(${TOKEN}+)=(?:"((?:[^"\\\\]|\\\\.)*)"|((?:${TOKEN}|[:[\\]])*))\\s*)?([;,]|$)`,
  'y',
);

/** Parses `Forwarded`. @returns undefined for what cannot be read: none of it is believed then */
function parseForwarded(text: string): readonly Hop[] | undefined {
  const hops: Hop[] = [];
  let pairs = new Map<string, string>();
  let at = 0;
  while (at < text.length) {
    PAIR.lastIndex = at;
    const match = PAIR.exec(text);
    if (!match) return undefined;
    const [, name, quoted, plain, end] = match;
    if (name !== undefined) pairs.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '');
    at = PAIR.lastIndex;
    if (end === ';') continue;
    hops.push({client: pairs.get('for'), scheme: pairs.get('proto'), host: pairs.get('host')});
    pairs = new Map();
  }
  return hops;
}

/** A host that may be written into a URL and into a quoted string. @returns undefined for any other text */
function parseHost(text: string | undefined): string | undefined {
  return text !== undefined && text.length <= 262 && HOST.test(text) ? text : undefined;
}

const HOST = /^(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::\d{1,5})?$/i;

/** Some proxies append the port: `10.0.0.1:5000`, `[2001:db8::1]:5000`. */
const withoutPort = (entry: string): string =>
  /^\[([^\]]*)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([^:]*):\d+$/.exec(entry)?.[1] ?? entry;
