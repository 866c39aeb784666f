import type {Socket} from 'node:net';

/** @returns the bytes that a socket has sent since the previous call for it */
export type SentBytes = (socket: Socket) => number;

/**
 * Counts the bytes that were really sent: an interrupted body counts up to where it ended, and headers count too.
 */
export function createSentBytes(): SentBytes {
  const counted = new WeakMap<Socket, number>();
  return (socket) => {
    // Bytes that are still queued in this process, also those for a client that has left, were not sent.
    const sent = Math.max(0, socket.bytesWritten - socket.writableLength);
    const before = counted.get(socket) ?? 0;
    counted.set(socket, Math.max(before, sent));
    return Math.max(0, sent - before);
  };
}
