import type {ServerResponse} from 'node:http';
import type {ParameterizedContext} from 'koa';
import type {RequestState} from './state.ts';

type Ctx = ParameterizedContext<RequestState>;

/** What is written at once, and how finely a client's progress is seen (`listen.sendTimeout`). */
const PIECE_BYTES = 128 * 1024;

/** Sends a body that a handler left in memory, as Koa would, but not in one piece when it is large. */
export async function sendLarge(ctx: Ctx): Promise<void> {
  const {body} = ctx;
  if (!Buffer.isBuffer(body) || body.length <= PIECE_BYTES || ctx.method === 'HEAD') return;
  ctx.length = body.length;
  await stream(ctx, [body]);
}

/**
 * Sends a body chunk by chunk, each gone before the next is asked for: a chunk's memory is used again then. The
 * headers go out at once, since a client's time limit for them must not depend on the first byte of a body. What
 * breaks on the way destroys the response, so that nobody takes it for whole.
 */
export async function stream(
  ctx: Ctx,
  bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  const {res} = ctx;
  // Bytes beyond the length that was told would be taken for the next answer on this connection, and fewer would
  // leave the client waiting (RFC 9112, section 6.3): node refuses both.
  res.strictContentLength = true;
  ctx.flushHeaders();
  ctx.respond = false;
  const send = createSender(res);
  try {
    for await (const chunk of bytes) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        if (!(await send(chunk.subarray(at, at + PIECE_BYTES)))) return;
      }
    }
    res.end();
  } catch (error) {
    res.destroy();
    ctx.app.emit('error', error, ctx);
  }
}

/** Gives a function that resolves when a chunk has left: true, or false when the client has. */
function createSender(res: ServerResponse): (chunk: Uint8Array) => Promise<boolean> {
  let settle: ((sent: boolean) => void) | undefined;
  res.once('close', () => settle?.(false));
  return (chunk) =>
    new Promise((resolve) => {
      if (res.destroyed) return resolve(false);
      settle = resolve;
      res.write(chunk, (error) => resolve(!error));
    });
}
