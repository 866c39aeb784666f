/** Whether an address to listen on can only be reached from the same machine. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127(?:\.\d+){3}$/.test(host);

/** Whether a server on this address listens on every address of its machine. */
export const isEveryAddress = (host: string): boolean => host === '0.0.0.0' || host === '::';

/** A host as it is written in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2). */
export const hostInUrl = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** The URL by which a client on the same machine reaches a server that listens on this address. */
export function localUrl(host: string, port: number): string {
  const loopback = host === '::' ? '::1' : '127.0.0.1';
  return `http://${hostInUrl(isEveryAddress(host) ? loopback : host)}:${port}`;
}
