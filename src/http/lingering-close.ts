import {setImmediate as nextTurn} from 'node:timers/promises';
import type {ParameterizedContext} from 'koa';
import type {Clock} from '../clock.ts';
import {awaitsInvitation, lengthOf} from './body.ts';
import type {RequestState} from './state.ts';

/** A rest of a body that is no longer is read away, so that the connection serves the next request. */
const SMALL_REST = 1024 * 1024;
/** Of a longer one, so many bytes are read, for so many milliseconds, while the client takes notice of its answer. */
const MAX_REST = 16 * 1024 * 1024;
const LONGEST_LINGER = 5000;

/**
 * True when an answer should end the connection, because the client was never told to send its body, or because what
 * is left of that is too much to read for nothing.
 */
export async function endsConnection(ctx: ParameterizedContext<RequestState>): Promise<boolean> {
  if (!hasMuchLeft(ctx)) return false;
  // The end of a body that came together with its headers is seen only after whoever refused those.
  await nextTurn();
  return hasMuchLeft(ctx);
}

function hasMuchLeft({req, res, state}: ParameterizedContext<RequestState>): boolean {
  if (req.complete || req.destroyed) return false;
  const rest = (lengthOf(req) ?? Number.POSITIVE_INFINITY) - state.received;
  if (rest <= 0) return false;
  return (
    rest > SMALL_REST || (awaitsInvitation(req) && !state.invited) || res.getHeader('Connection') === 'close'
  );
}

/**
 * Answers a client that is still sending, and ends the connection: closed at once, the client would see a reset instead
 * of the answer (RFC 9112, section 9.6). So our side is closed first, and what still comes is read for a while.
 */
export async function answerAndLinger(
  ctx: ParameterizedContext<RequestState>,
  body: Buffer,
  clock: Clock,
): Promise<void> {
  const {req, res} = ctx;
  const {socket} = req;
  ctx.respond = false;
  ctx.set('Connection', 'close');
  ctx.length = body.length;
  const {promise: over, resolve: end} = Promise.withResolvers<void>();
  const cancel = clock.after(LONGEST_LINGER, end);
  let rest = 0;
  req.on('data', (chunk: Buffer) => {
    rest += chunk.length;
    if (rest > MAX_REST) end();
  });
  req.once('close', () => end());
  // An answer to HEAD has nothing else.
  res.flushHeaders();
  res.write(body, () => socket.end());
  await over;
  cancel();
  socket.destroy();
}
