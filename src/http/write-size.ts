import type {Entrance} from './entrance.ts';

/** The largest single write, in bytes. */
const MAX_WRITE_BYTES = 1024 * 1024;
/** Over TLS all of it is kept a second time, encrypted, until the client has taken it. */
const MAX_TLS_WRITE_BYTES = 128 * 1024;

/** How many bytes are written at once to a connection that came in there. */
export const maxWriteAt = ({isSecure}: Pick<Entrance, 'isSecure'>): number =>
  isSecure ? MAX_TLS_WRITE_BYTES : MAX_WRITE_BYTES;
