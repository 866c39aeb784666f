import type {Duplex} from 'node:stream';

/** The largest single write, in bytes. */
export const MAX_WRITE_BYTES = 1024 * 1024;
/** Over TLS all of it is kept a second time, encrypted, until the client has taken it. */
const MAX_TLS_WRITE_BYTES = 128 * 1024;

/** How many bytes are written to a connection at once. */
export const maxWriteTo = (socket: Duplex): number =>
  'encrypted' in socket ? MAX_TLS_WRITE_BYTES : MAX_WRITE_BYTES;
