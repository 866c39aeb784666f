/** Where a server listens: an address and a port (0 takes any free one), or a Unix socket and the mode of its file. */
export type ListenAddress =
  | {readonly host: string; readonly port: number}
  | {readonly socket: string; readonly socketMode: number};

/** Whether a host can only be reached from the same machine. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127(?:\.\d+){3}$/.test(host);

/** Whether only processes on the same machine can connect. */
export const isLocalOnly = (address: ListenAddress): boolean =>
  'socket' in address || isLoopback(address.host);

/** Whether a server on this address listens on every address of its machine. */
export const isEveryAddress = (host: string): boolean => host === '0.0.0.0' || host === '::';

/** A host as it is written in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2). */
export const hostInUrl = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** `127.0.0.1:5000`, or the path of a Unix socket. */
export const formatAddress = (address: ListenAddress): string =>
  'socket' in address ? address.socket : `${hostInUrl(address.host)}:${address.port}`;

/**
 * The URL by which a client on the same machine reaches a server that listens on this address; for a Unix socket
 * `unix:PATH`.
 */
export function localUrl(address: ListenAddress, isSecure = false): string {
  if ('socket' in address) return `unix:${address.socket}`;
  return `http${isSecure ? 's' : ''}://${hostInUrl(localHost(address.host))}:${address.port}`;
}

/** The host by which a client on the same machine reaches a server that listens on this one. */
export function localHost(host: string): string {
  if (!isEveryAddress(host)) return host;
  return host === '::' ? '::1' : '127.0.0.1';
}
