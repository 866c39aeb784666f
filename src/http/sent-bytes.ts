import type {Socket} from 'node:net';

/** @returns the bytes that a socket has sent since the previous call for it */
export type SentBytes = (socket: Socket) => number;

/**
 * Counts the bytes that were really sent: an interrupted body counts up to where it ended, and headers count too.
 */
export function createSentBytes(): SentBytes {
  // Objects, so that counting allocates nothing.
  const counted = new WeakMap<Socket, {bytes: number}>();
  return (socket) => {
    // Bytes that are still queued in this process, also those for a client that has left, were not sent.
    const sent = Math.max(0, socket.bytesWritten - socket.writableLength);
    let last = counted.get(socket);
    if (!last) {
      last = {bytes: 0};
      counted.set(socket, last);
    }
    const {bytes} = last;
    last.bytes = Math.max(bytes, sent);
    return Math.max(0, sent - bytes);
  };
}
