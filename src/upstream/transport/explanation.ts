import {bareMediaType} from '../../oci/media-type.ts';
import {collect, discard} from './body.ts';
import {header, type Reply} from './request.ts';

const MAX_ERROR_BYTES = 64 * 1024;
/** Characters of an upstream's own words that are repeated. */
const MAX_TEXT = 300;

export interface Explanation {
  code?: string;
  /** On one line; empty where there is none. */
  text: string;
}

const textOf = (value: unknown): string =>
  typeof value === 'string' ? value.replaceAll(/\s+/g, ' ').trim().slice(0, MAX_TEXT) : '';

/** Reads what an OCI error body says (distribution-spec, "Error Codes"). Never throws: the status stands without it. */
export async function explanationOf(reply: Reply, host: string): Promise<Explanation> {
  if (bareMediaType(header(reply.headers, 'content-type')) !== 'application/json') {
    discard(reply.body);
    return {text: ''};
  }
  try {
    const bytes = await collect(reply.body, host, MAX_ERROR_BYTES, 'the error');
    const [{code, message}] = JSON.parse(bytes.toString('utf8')).errors;
    return {...(textOf(code) === '' ? {} : {code: textOf(code)}), text: textOf(message)};
  } catch {
    return {text: ''};
  }
}
