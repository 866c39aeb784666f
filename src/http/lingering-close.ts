import type {IncomingMessage} from 'node:http';
import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../clock.ts';
import type {IncomingBody} from './body.ts';

/** Up to this many bytes of an unneeded body are read, so that the connection can serve the next request. */
const MAX_DISCARDED_BYTES = 1024 * 1024;
/** If more is left, the connection ends: this much is read, for this long, while the client reads its answer. */
const MAX_LINGERING_BYTES = 16 * 1024 * 1024;
const MAX_LINGERING_MS = 5000;

/**
 * True when an answer has to end the connection, because the client was never invited to send its body, or because the
 * rest of the body is too long to read and discard.
 * @param closes the answer says `Connection: close` anyway
 */
export async function mustEndConnection(
  request: IncomingMessage,
  body: IncomingBody,
  closes: boolean,
): Promise<boolean> {
  if (!hasMuchLeft(request, body, closes)) return false;
  // The end of a body that came together with its headers is seen only after those were refused.
  await nextTurn();
  return hasMuchLeft(request, body, closes);
}

function hasMuchLeft(request: IncomingMessage, body: IncomingBody, closes: boolean): boolean {
  if (request.complete || request.destroyed) return false;
  const left = (body.length ?? Number.POSITIVE_INFINITY) - body.received;
  return left > 0 && (left > MAX_DISCARDED_BYTES || body.isAwaited || closes);
}

/**
 * Ends the connection of a client that is still sending when it is answered. Closed at once, it would give the client a
 * reset instead of the answer (RFC 9112, section 9.6). So the caller closes our side after the answer, and what still
 * arrives is read and dropped for a while. Resolves when the connection is destroyed.
 * @param answered resolves when the system has taken the answer
 */
export async function closeLingering(
  request: IncomingMessage,
  answered: Promise<void>,
  clock: Clock,
): Promise<void> {
  const {promise: over, resolve: end} = Promise.withResolvers<void>();
  const cancel = clock.after(MAX_LINGERING_MS, end);
  let dropped = 0;
  request.on('data', (chunk: Buffer) => {
    dropped += chunk.length;
    if (dropped > MAX_LINGERING_BYTES) end();
  });
  request.once('close', () => void answered.then(end));
  await over;
  cancel();
  request.socket.destroy();
}
