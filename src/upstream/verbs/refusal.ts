import {blobOf} from '../../oci/blob.ts';
import {type Exchange, type Question, REFUSALS} from '../exchange.ts';
import {UpstreamRefusal} from '../port.ts';
import {discard} from '../transport/body.ts';
import {explanationOf} from '../transport/explanation.ts';
import type {Reply} from '../transport/request.ts';
import {bytesHeld} from './session.ts';

/** The body of a write that has none to send. */
export const EMPTY = blobOf(Buffer.alloc(0));

type Write = Omit<Question, 'answers'>;

/**
 * Asks for a change, whose answer is its head.
 * @param what for the refusal's message: "refuses …".
 * @throws UpstreamRefusal with the registry's own reason when it refuses; UpstreamFailure when it cannot be asked.
 */
export async function write(ask: Exchange['ask'], question: Write, what: string): Promise<Reply> {
  const reply = await ask({...question, answers: REFUSALS});
  const {status} = reply;
  if (status < 300) {
    discard(reply.body);
    return reply;
  }
  const {host} = question.url;
  const offset = status === 416 ? bytesHeld(reply) : undefined;
  const explanation = await explanationOf(reply, host);
  throw new UpstreamRefusal(host, what, {
    status,
    ...explanation,
    ...(offset === undefined ? {} : {offset}),
  });
}
