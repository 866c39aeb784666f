import {blobOf} from '../../oci/blob.ts';
import type {ApiRequest, Ask} from '../api-request.ts';
import {UpstreamRefusal} from '../port.ts';
import {discard} from '../transport/body.ts';
import {explanationOf, REFUSALS, type Reply} from '../transport/reply.ts';
import {bytesHeld} from './session.ts';

/** The body of a write that has nothing to send. */
export const EMPTY = blobOf(Buffer.alloc(0));

/**
 * Sends a write, of whose reply only the head matters.
 * @param what completes the refusal's message, "refuses …".
 * @throws UpstreamRefusal with the registry's own reason when it refuses; UpstreamFailure when it cannot be asked.
 */
export async function write(ask: Ask, request: Omit<ApiRequest, 'expected'>, what: string): Promise<Reply> {
  const reply = await ask({...request, expected: REFUSALS});
  const {status} = reply;
  if (status < 300) {
    discard(reply.body);
    return reply;
  }
  const {host} = request.url;
  const offset = status === 416 ? bytesHeld(reply) : undefined;
  const {code, message} = await explanationOf(reply, host);
  throw new UpstreamRefusal(host, what, {status, code, message, offset});
}
