import {blobOf} from '../oci/blob.ts';
import {bareMediaType} from '../oci/media-type.ts';
import {collect, discard} from './body.ts';
import {type Exchange, type Question, REFUSALS} from './exchange.ts';
import {UpstreamRefusal} from './port.ts';
import {header, type Reply} from './request.ts';
import {bytesHeld} from './session.ts';

/** The body of a write that has none to send. */
export const EMPTY = blobOf(Buffer.alloc(0));

const MOST_ERROR_BYTES = 64 * 1024;
const MOST_TEXT = 300;

interface Explanation {
  code?: string;
  text: string;
}

const textOf = (value: unknown): string =>
  typeof value === 'string' ? value.replaceAll(/\s+/g, ' ').trim().slice(0, MOST_TEXT) : '';

/** What an OCI error body says (distribution-spec, "Error Codes"). */
async function explanationOf(reply: Reply, host: string): Promise<Explanation> {
  if (bareMediaType(header(reply.headers, 'content-type')) !== 'application/json') {
    discard(reply.body);
    return {text: ''};
  }
  try {
    const bytes = await collect(reply.body, host, MOST_ERROR_BYTES, 'the error');
    const [{code, message}] = JSON.parse(bytes.toString('utf8')).errors;
    return {...(textOf(code) === '' ? {} : {code: textOf(code)}), text: textOf(message)};
  } catch {
    // The refusal stands; its reason stays unknown.
    return {text: ''};
  }
}

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
