import type {Socket} from 'node:net';

/**
 * Counts what clients are really sent: a body that breaks off counts as far as it went, and headers count too.
 * @returns a function that gives the bytes that a socket has sent since it was last asked
 */
export function createSentBytes(): (socket: Socket) => number {
  const counted = new WeakMap<Socket, number>();
  return (socket) => {
    // What still waits in this process, or is left there by a client that is gone, was not sent.
    const sent = Math.max(0, socket.bytesWritten - socket.writableLength);
    const before = counted.get(socket) ?? 0;
    counted.set(socket, Math.max(before, sent));
    return Math.max(0, sent - before);
  };
}
